"""What `--only-missing-outputs` makes again, and what it leaves, on a finished run of `conf/test`."""

import atexit
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from multiprocessing import Pipe
from pathlib import Path

import mlflow
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner
from kedro_project import Project
from processes import start

from spatial_functa_pipeline.datasets.weights import WeightsDataset
from spatial_functa_pipeline.pipeline_registry import register_pipelines

pytestmark = pytest.mark.slow

CHANGES = {  # in the configuration files: on the command line they would name other folders
    "quantisation.bits": 6,
    "classification.dropout": 0.2,
    "diffusion.normalisation.gamma": 1.5,
    "evaluation.sampling.steps": 5,
    "evaluation.figure_images": 3,
    "seed": 1,
}
CARRIED_OUT = "classification.dropout"
"""The change after which the nodes are run; after the others it is enough to see which ones would be."""
NEUTRAL = {
    "runtime": {"num_workers": 1, "compile": "off"},
    "data": {"num_classes": None},
    "meta_learning": {"training": {"micro_batch": 8, "log_every": 20, "checkpoint_every": 30, "guard": {"retries": 3}}},
    "functaset": {"encode_batch": 8},
}


class Planning(SequentialRunner):
    """Says which nodes it would run, and runs none."""

    def _run(self, pipeline, *arguments):
        for node in pipeline.nodes:
            logging.getLogger("kedro").info("Running node: %s: not now", node.name)
        raise InterruptedError("only planned")


class Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def emit(self, record):
        self.kept.append(record.getMessage())


def run_sessions(folder, cases):
    """In another process: sessions one after the other; what each has logged goes into a file."""
    os.chdir(folder)
    bootstrap_project(Path.cwd())
    found = {}
    conf = shutil.copytree("conf/test", "former/test")
    for case, (outputs, edits, params, options) in cases.items():
        shutil.copytree(conf, "conf/test", dirs_exist_ok=True)
        Project(Path.cwd()).edit(edits)
        for output in Path(outputs).iterdir() if outputs else ():
            shutil.rmtree(f"data/{output.name}", ignore_errors=True)
            shutil.copytree(output, f"data/{output.name}")
        with KedroSession.create(project_path=Path.cwd(), env="test", runtime_params=params) as session:
            logging.getLogger().addHandler(messages := Messages())
            runner = Planning() if options.pop("planned", False) else None
            try:
                session.run(runner=runner, **options)
            except Exception as error:
                messages.kept.append(f"error: {error}")
            logging.getLogger().removeHandler(messages)
        found[case] = messages.kept
    Path("messages.json").write_text(json.dumps(found))


class Waiting(logging.Handler):
    """Waits for the process's end in a node that is no training, and says so through a connection."""

    def __init__(self, connection):
        super().__init__()
        self._connection = connection

    def emit(self, record):
        if record.getMessage().startswith("Running node: compute_latent_statistics"):
            self._connection.send("waiting")
            time.sleep(600)


def wait_in_a_node(folder, connection):
    """In another process: a run that somebody has to end."""
    os.chdir(folder)
    bootstrap_project(Path.cwd())
    try:
        with KedroSession.create(project_path=Path.cwd(), env="test") as session:
            logging.getLogger().addHandler(Waiting(connection))
            session.run(pipeline_names=["normalization_stats"])
    finally:
        atexit._run_exitfuncs()  # as Python does when a program ends; a forked process leaves it out


def dependants(*changed):
    """Names of the nodes that a changed parameter or dataset reaches, by Kedro's own account of the pipeline."""
    everything = register_pipelines()["__default__"]
    reads = {name: f"{name.removeprefix('params:')}." for name in everything.datasets()}
    inputs = [name for name, prefix in reads.items() if any(f"{key}.".startswith(prefix) for key in changed)]
    return {node.name for node in everything.from_inputs(*inputs).nodes}


def test_only_the_training_images_have_augmented_copies():
    """Written out: the other tests take Kedro's word for what depends on what."""
    changed = dependants("functaset.augmented_copies")
    assert {"build_train_functaset", "compute_latent_statistics", "train_latent_classifier"} <= changed
    assert not changed & {"meta_learn_field", "build_validation_functaset", "build_test_functaset"}


def test_other_bits_encode_nothing_again():
    changed = dependants("quantisation.bits")
    assert {f"quantise_{split}_functaset" for split in ("train", "validation", "test")} <= changed
    assert "train_latent_denoiser" in changed
    assert not [name for name in changed if name.startswith("build_")]


def runs_of(project):
    """Status of each MLflow run of the project, by its id."""
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    return {run.info.run_id: run.info.status for run in client.search_runs([experiment.experiment_id])}


def replace_field(outputs, *, with_record):
    """Another field in a folder of outputs, as if trained on another machine, with the record that it got there or without."""
    (field,) = (outputs / "06_models").rglob("4x4x8-nearest/encoder.safetensors")
    content = bytearray(field.read_bytes())
    content[-1] ^= 1  # the lowest bit of a number's highest byte
    field.write_bytes(content)
    if with_record:
        record_path = field.with_name(f".{field.name}.fingerprint.json")
        record = json.loads(record_path.read_text())
        dataset = WeightsDataset(filepath=str(field))
        record |= {"content": dataset.content_digest(), "stamp": dataset._stamp()}
        record_path.write_text(json.dumps(record))


def nodes_in(messages):
    """Names of the nodes that ran, in their order."""
    return [found[1] for message in messages if (found := re.match(r"Running node: (\w+):", message))]


@pytest.fixture(scope="module")
def project(finished, make_project):
    """Another project with the outputs of a finished one, in several states, and its MLflow store."""
    project = make_project()
    for state in ("finished", "edited", "exchanged"):
        project.take_outputs(finished, state)
    replace_field(project.path / "edited", with_record=False)
    replace_field(project.path / "exchanged", with_record=True)
    project.take_runs(finished)
    return project


@pytest.fixture(scope="module")
def abandoned(project):
    """MLflow runs that say RUNNING: of a process that is gone, and of one that is not."""
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    tags = [{"process": f"{socket.gethostname()}:{process}"} for process in (gone.pid, os.getpid())]
    return [client.create_run(experiment.experiment_id, tags=tag).info.run_id for tag in tags]


@pytest.fixture(scope="module")
def sessions(project, abandoned):
    """The log messages of each of the sessions, and the statuses of the MLflow runs before and after all."""
    missing = {"only_missing_outputs": True}
    planned = {key: {**missing, "planned": key != CARRIED_OUT} for key in CHANGES}
    cases = {
        "nothing": ["finished", {}, {}, missing],
        "neutral": ["finished", {}, NEUTRAL, missing],
        **{key: ["finished", {key: value}, {}, planned[key]] for key, value in CHANGES.items()},
        "refused": [
            "finished",
            {"functaset.shard_rows": 64},
            {"runtime": {"replace_stale": False}},
            {"pipeline_names": ["functaset_build"]},
        ],
        "edited": ["edited", {}, {}, {"pipeline_names": ["functaset_build"]}],
        "exchanged": ["exchanged", {}, {}, {"pipeline_names": ["classification"]}],
        "mended": [None, {}, {}, missing],
        "nothing more": [None, {}, {}, missing],
    }
    before = runs_of(project)
    printed = project.path / "printed"
    process = start(run_sessions, project.path, cases, output=printed)
    process.join()
    assert process.exitcode == 0, printed.read_text()
    return json.loads((project.path / "messages.json").read_text()), before, runs_of(project)


@pytest.mark.parametrize("key", CHANGES)
def test_exactly_what_depends_on_a_changed_parameter_is_made_again(sessions, key):
    nodes = nodes_in(sessions[0][key])
    assert len(nodes) == len(set(nodes))
    assert set(nodes) == dependants(key)
    assert ("error: only planned" in sessions[0][key]) == (key != CARRIED_OUT)
    assert any(re.match(rf"To be made: \w+ \(.*{key} was .*, is {CHANGES[key]}", line) for line in sessions[0][key])


def test_what_a_parameter_does_not_reach_is_left(sessions):
    """Kedro's account of the pipeline is not taken on trust alone."""
    messages = sessions[0]
    assert "train_latent_classifier" not in nodes_in(messages["diffusion.normalisation.gamma"])
    assert "train_latent_denoiser" not in nodes_in(messages["classification.dropout"])
    assert not {"meta_learn_field", *(f"build_{split}_functaset" for split in ("train", "validation", "test"))} & set(
        nodes_in(messages["quantisation.bits"])
    )
    assert "train_latent_denoiser" not in nodes_in(messages["evaluation.sampling.steps"])
    assert "sample_latents" not in nodes_in(messages["evaluation.figure_images"])


@pytest.mark.parametrize("case", ["nothing", "neutral", "nothing more"])
def test_nothing_is_made_again_if_no_result_could_differ(sessions, case):
    messages = sessions[0][case]
    assert nodes_in(messages) == []
    assert messages.count("Nothing to do: everything is up to date") == 1
    assert not any(message.startswith("error: ") for message in messages)


def test_a_field_edited_by_hand_is_not_used(sessions):
    (error,) = (message for message in sessions[0]["edited"] if message.startswith("error: "))
    assert (
        "encoder.safetensors was changed or replaced by hand, but not its record .encoder.safetensors.finger" in error
    )


def test_another_field_makes_what_was_built_with_it_stale(sessions):
    """The same parameters, but trained on another machine and copied here together with its record."""
    (error,) = (message for message in sessions[0]["exchanged"] if message.startswith("error: "))
    assert "encoder is not the one that train_functaset.zarr was made from: it was made again or replaced" in error
    assert "kedro run --only-missing-outputs makes again what is stale" in error
    messages = sessions[0]["mended"]
    takers = register_pipelines()["__default__"].from_inputs("encoder")  # not those of the parameter of this name
    assert set(nodes_in(messages)) == {node.name for node in takers.nodes}
    reason = (
        "To be made: encoded_train_functaset (encoder is not the one that encoded_train_functaset.zarr was made from"
    )
    assert any(message.startswith(reason) for message in messages)


def test_mlflow_runs_are_opened_where_there_is_something_to_do_and_none_is_left_running(sessions, abandoned):
    _, before, after = sessions
    new = Counter(after[run] for run in set(after) - set(before))  # what is stale is found before there is a run
    assert new == {"FINISHED": 2, "FAILED": len(CHANGES) - 1}  # carried out, among them `mended`, and only planned
    gone, alive = abandoned
    assert (after[gone], after[alive]) == ("KILLED", "RUNNING")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
def test_sigterm_in_any_node_ends_the_mlflow_run(project, sessions):  # goes on with the files of the last session
    before, printed = runs_of(project), project.path / "waited"
    here, there = Pipe()
    process = start(wait_in_a_node, project.path, there, output=printed)
    there.close()
    try:
        assert here.recv() == "waiting"
    except EOFError:
        pytest.fail(printed.read_text())
    (run,) = set(runs_of(project)) - set(before)
    assert runs_of(project)[run] == "RUNNING"
    process.terminate()
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM, printed.read_text()
    assert runs_of(project)[run] == "KILLED"


def test_a_functaset_is_not_replaced_unasked(sessions):
    messages = sessions[0]["refused"]
    (error,) = [message for message in messages if message.startswith("error: ")]
    assert "Nothing was run, since it would replace what other parameters or files have made" in error
    assert "train_functaset: functaset.shard_rows was 128, is 64" in error
    assert "--only-missing-outputs, or --params runtime.replace_stale=true" in error
    assert nodes_in(messages) == []
