"""Two runs at once: one makes an output, the other waits or is told who does."""

import errno
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import filelock
import pytest
from kedro.io import DataCatalog
from kedro.pipeline.node import node
from processes import start

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.datasets.weights import WeightsDataset
from spatial_functa_pipeline.hooks import one_writer
from spatial_functa_pipeline.hooks.mlflow import MlflowHooks
from spatial_functa_pipeline.hooks.one_writer import OneWriterHooks
from spatial_functa_pipeline.settings import HOOKS
from spatial_functa_pipeline.studies.schedule import TRY_AGAIN

TRAIN = node(lambda: (0, 1), None, ["denoiser", "denoiser_history"], name="train_latent_denoiser")


def catalog_of(project, folder="8x8x16-nearest"):
    return DataCatalog(
        {name: WeightsDataset(filepath=str(project / folder / name)) for name in (*TRAIN.outputs, "field")}
    )


def run_of(project, variant="toy/8x8x16-nearest"):
    """The hooks of a run."""
    hooks, loader = OneWriterHooks(), ProjectConfigLoader.__new__(ProjectConfigLoader)
    loader.__dict__["places"] = SimpleNamespace(name=variant)
    hooks.after_context_created(SimpleNamespace(project_path=project, config_loader=loader))
    hooks.before_pipeline_run()
    return hooks


def locks(project):
    return [*(project / "data/.locks").iterdir()]


def test_kedro_calls_it():
    assert any(isinstance(hook, OneWriterHooks) for hook in HOOKS)


def test_a_second_run_is_told_who_makes_the_output_since_when_and_what_to_do(tmp_path):
    first, second = run_of(tmp_path), run_of(tmp_path)
    first.before_node_run(TRAIN, catalog_of(tmp_path))
    with pytest.raises(click.ClickException) as caught:
        second.before_node_run(TRAIN, catalog_of(tmp_path))
    said = caught.value.message
    assert said.startswith(f"denoiser ({tmp_path}/8x8x16-nearest/denoiser) is being made by another run: process ")
    assert f"process {os.getpid()} on {socket.gethostname()}, since 2" in said
    assert "for toy/8x8x16-nearest." in said
    assert "--only-missing-outputs" in said
    assert "--params seed=1" in said


def test_an_output_is_free_once_it_is_saved_and_no_file_is_left(tmp_path):
    first, second = run_of(tmp_path), run_of(tmp_path)
    for run in (first, second):
        run.before_node_run(TRAIN, catalog_of(tmp_path))
        assert len(locks(tmp_path)) == 2
        for name in TRAIN.outputs:
            run.after_dataset_saved(name)
        assert locks(tmp_path) == []


@pytest.mark.parametrize("end", ["on_pipeline_error", "after_pipeline_run", "before_pipeline_run"])
def test_no_end_of_a_run_leaves_a_lock(tmp_path, end):
    """The last one is the begin of the next run of a process, as in a notebook: Kedro calls no hook on Ctrl-C."""
    first = run_of(tmp_path)
    first.before_node_run(TRAIN, catalog_of(tmp_path))
    getattr(first, end)()
    assert locks(tmp_path) == []
    run_of(tmp_path).before_node_run(TRAIN, catalog_of(tmp_path))


def test_other_outputs_are_free(tmp_path):
    """Of another node, and those of the same name in another variant's folder."""
    other = node(lambda: 0, None, "field", name="meta_learn_field")
    runs = [run_of(tmp_path) for _ in range(3)]
    runs[0].before_node_run(TRAIN, catalog_of(tmp_path))
    runs[1].before_node_run(other, catalog_of(tmp_path))
    runs[2].before_node_run(TRAIN, catalog_of(tmp_path, "4x4x32-nearest"))
    assert len(locks(tmp_path)) == 5


def test_a_run_of_another_variant_waits_for_an_output_that_both_share(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(one_writer, "_POLL", 0.01)
    first, second = run_of(tmp_path), run_of(tmp_path, "toy/8x8x16-nearest/diffusion.conditional=false")
    first.before_node_run(TRAIN, catalog_of(tmp_path))
    waiting = threading.Thread(target=second.before_node_run, args=(TRAIN, catalog_of(tmp_path)))
    waiting.start()
    while "Waiting for denoiser" not in caplog.text:
        time.sleep(0.01)
    assert f"it is being made by process {os.getpid()} on " in caplog.text
    first.after_dataset_saved("denoiser_history")
    waiting.join(0.2)
    assert waiting.is_alive()
    first.after_dataset_saved("denoiser")
    waiting.join(20)
    assert not waiting.is_alive()
    assert len(locks(tmp_path)) == 2
    second.after_pipeline_run()
    assert locks(tmp_path) == []


def lock_and_sleep(project):
    run = run_of(project)  # a lock goes with the last reference to it
    run.before_node_run(TRAIN, catalog_of(project))
    Path(project, "ready").touch()
    time.sleep(600)


def test_a_killed_run_leaves_nothing_that_is_in_the_way(tmp_path):
    process = start(lock_and_sleep, tmp_path)
    while process.is_alive() and not (tmp_path / "ready").exists():
        time.sleep(0.02)
    with pytest.raises(click.ClickException, match=rf"process {process.pid} on "):
        run_of(tmp_path).before_node_run(TRAIN, catalog_of(tmp_path))
    process.kill()
    process.join()
    run = run_of(tmp_path)
    run.before_node_run(TRAIN, catalog_of(tmp_path))
    run.after_pipeline_run()
    assert locks(tmp_path) == []


def test_a_run_does_not_make_again_what_was_made_while_it_waited(tmp_path, caplog, monkeypatch):
    """It holds no lock then; half of it would not do."""
    monkeypatch.setattr(one_writer, "_POLL", 0.01)
    first, second = run_of(tmp_path), run_of(tmp_path, "toy/8x8x16-nearest/diffusion.conditional=false")
    first.before_node_run(TRAIN, catalog_of(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.before_node_run, TRAIN, catalog_of(tmp_path))
        while "Waiting for denoiser" not in caplog.text:
            time.sleep(0.01)
        for name in TRAIN.outputs:
            make(tmp_path, name)
            first.after_dataset_saved(name)
        with pytest.raises(click.ClickException) as caught:
            waiting.result(20)
    assert re.match(
        r"denoiser and denoiser_history: made meanwhile by process \d+ on .*nearest\.\n", caught.value.message
    )
    assert caught.value.exit_code == TRY_AGAIN
    assert "Give the same command with --only-missing-outputs" in caught.value.message
    second.on_pipeline_error()
    assert locks(tmp_path) == []


def test_an_output_that_is_given_back_while_its_writer_is_looked_for_is_free(tmp_path, monkeypatch):
    """Its file, which says whose it is, is gone then: nobody makes it any more."""
    first, second = run_of(tmp_path), run_of(tmp_path, "toy/8x8x16-nearest/diffusion.conditional=false")
    first.before_node_run(TRAIN, catalog_of(tmp_path))

    def signed_by(lock):
        first.after_pipeline_run()

    monkeypatch.setattr(one_writer, "_signed_by", signed_by)
    second.before_node_run(TRAIN, catalog_of(tmp_path))
    assert len(locks(tmp_path)) == 2


def test_an_output_whose_writer_does_not_say_who_it_is_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(one_writer, "_PATIENCE", 0.05)
    monkeypatch.setattr(one_writer, "_POLL", 0.01)
    first, second = run_of(tmp_path), run_of(tmp_path)
    first.before_node_run(TRAIN, catalog_of(tmp_path))
    for file in locks(tmp_path):
        file.write_text("")
    with pytest.raises(click.ClickException, match="by another run: a process that does not say who it is"):
        second.before_node_run(TRAIN, catalog_of(tmp_path))


def test_a_run_makes_again_what_was_there_before_it(tmp_path):
    """It has not waited, and was asked to."""
    run = run_of(tmp_path)
    for name in TRAIN.outputs:
        make(tmp_path, name)
    run.before_node_run(TRAIN, catalog_of(tmp_path))
    assert len(locks(tmp_path)) == 2


def make(project, name):
    (project / "8x8x16-nearest").mkdir(exist_ok=True)
    (project / "8x8x16-nearest" / name).touch()


NO_LOCKS = [("flock", errno.ENOSYS), ("flock", errno.ENOLCK), ("flock", errno.EOPNOTSUPP)]
READ_ONLY = [("mkdir", errno.EACCES), ("mkdir", errno.EPERM), ("mkdir", errno.EROFS)]


@pytest.fixture(params=[*NO_LOCKS, *READ_ONLY], ids=lambda refused: f"{refused[0]}-{errno.errorcode[refused[1]]}")
def without_locks(request, monkeypatch):
    """Of a file system that has none, or a folder `data` that cannot be written: the words for it."""
    call, code = request.param

    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(filelock._native._unix.fcntl if call == "flock" else Path, call, refuse)
    return os.strerror(code)


def test_a_place_without_locks_is_said_and_used_all_the_same(tmp_path, without_locks, caplog):
    run = run_of(tmp_path)
    run.before_node_run(TRAIN, catalog_of(tmp_path))
    assert without_locks in caplog.text
    assert "make sure yourself that no other run is at denoiser" in caplog.text
    run.after_dataset_saved("denoiser")


def test_the_store_of_mlflow_is_opened_in_a_place_without_locks(tmp_path, without_locks, caplog):
    with one_writer.locked(tmp_path, "mlflow"):
        assert without_locks in caplog.text
    assert "make sure yourself that no other run is at mlflow" in caplog.text


def test_other_trouble_with_a_lock_is_not_taken_for_that(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filelock._native._unix.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), one_writer.locked(tmp_path, "mlflow"):
        pass


def test_the_store_of_mlflow_is_opened_by_one_run_at_a_time(tmp_path, monkeypatch, caplog):
    """Two runs that find no tables would both make them: `duplicate column name`. Who waits says so."""
    monkeypatch.setattr(one_writer, "_POLL", 0.01)
    inside, most = [], []

    def open_store(hooks, context):
        inside.append(context)
        most.append(len(inside))
        time.sleep(0.05)
        inside.remove(context)

    monkeypatch.setattr(MlflowHooks.__base__, "after_context_created", open_store)
    loader = ProjectConfigLoader.__new__(ProjectConfigLoader)
    loader.__dict__["places"] = SimpleNamespace(name="v")
    contexts = [SimpleNamespace(project_path=tmp_path, config_loader=loader) for _ in range(4)]
    threads = [threading.Thread(target=partial(MlflowHooks().after_context_created, one)) for one in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert "Waiting for mlflow: another run of this project is at it" in caplog.text
    assert locks(tmp_path) == []


@pytest.mark.slow
def test_the_same_command_twice_at_once(empty_project):
    """The second one stops before the node, and its command with what the message names succeeds after that."""
    project, command = empty_project, ("run", "--env", "test", "--pipeline=meta_learning")
    folder = project.path / "data/06_models/test_run/4x4x8-nearest"
    first = run_of(project.path, "test_run/4x4x8-nearest")
    datasets = {name: WeightsDataset(filepath=str(folder / file)) for name, file in FIELD.items()}
    first.before_node_run(node(lambda: (0, 1), None, [*FIELD], name="meta_learn_field"), DataCatalog(datasets))
    output = re.sub(r"\s+", " ", project.kedro(*command, check=False, COLUMNS="1000"))
    assert f"Error: field ({folder}/field.safetensors) is being made by another run: process {os.getpid()} on" in output
    assert not folder.joinpath("checkpoints").exists()
    first.after_pipeline_run()
    project.kedro(*command, "--only-missing-outputs")
    assert folder.joinpath("field.safetensors").exists()
    assert locks(project.path) == []


FIELD = {"field": "field.safetensors", "field_history": "field_history.csv"}


@pytest.mark.slow
def test_two_variants_at_once_in_a_fresh_project(make_project, tmp_path):
    """Both open MLflow's store, which is not there yet, and want what they share: the feature network.

    If one has waited for it, it ends; the same command with what the message names goes on.
    """
    project, processes, exits = make_project(), {}, {}
    command = ("run", "--env", "test", "--nodes=train_feature_network,meta_learn_field", "--params")
    for shape in ("4x4x8", "8x8x4"):
        processes[shape] = project.start(*command, f"latent_shape={shape}", output=tmp_path / shape)
    for shape, process in processes.items():
        process.join()
        exits[shape] = process.exitcode
    assert 0 in exits.values()
    for shape in (shape for shape, code in exits.items() if code):
        assert exits[shape] == TRY_AGAIN
        said = re.sub(r"\s+", " ", (tmp_path / shape).read_text())
        assert "Error: feature_network and feature_network_history: made meanwhile by process" in said
        project.kedro(*command, f"latent_shape={shape}", "--only-missing-outputs")
    models = project.path / "data/06_models/test_run"
    made = ("4x4x8-nearest/field", "8x8x4-nearest/field", "images/feature_network")
    assert all((models / f"{name}.safetensors").exists() for name in made)
    assert locks(project.path) == []
