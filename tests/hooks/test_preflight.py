"""What a run needs is looked at before its first node."""

import os
import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click import ClickException
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from PIL import Image

from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset
from spatial_functa_pipeline.functasets import location
from spatial_functa_pipeline.hooks import lazy_mlflow, preflight
from spatial_functa_pipeline.hooks.freshness import FreshnessHooks
from spatial_functa_pipeline.hooks.preflight import PreflightHooks
from spatial_functa_pipeline.images.folder import PictureFolder
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS


def problems(project, pipeline="__default__", params=None, only_missing=False):
    """What is said before a run of conf/test with these parameters."""
    loader = CONFIG_LOADER_CLASS(
        str(project.path / "conf"), env="test", runtime_params=params or {}, **CONFIG_LOADER_ARGS
    )
    entries = {
        name: {**entry, "filepath": str(project.path / entry["filepath"])} for name, entry in loader["catalog"].items()
    }
    parameters = loader["parameters"]
    catalog = DataCatalog.from_config(entries)
    freshness, hooks = FreshnessHooks(), PreflightHooks()
    freshness.after_catalog_created(catalog, {"parameters": parameters})
    hooks.after_catalog_created({"parameters": parameters})
    try:
        run_params = {"only_missing_outputs": only_missing, "project_path": str(project.path)}
        hooks.before_pipeline_run(run_params, register_pipelines()[pipeline], catalog)
    except ClickException as error:
        return error.message
    return ""


def test_nothing_is_said_when_nothing_is_missing(empty_project):
    assert problems(empty_project) == ""


def test_all_that_is_missing_is_said_at_once(empty_project):
    wrong = {
        "runtime": {"device": "cuda:7"},
        "data": {"num_classes": 7},
        "evaluation": {"frechet": {"features": "inception", "inception_weights": "/no/such.pth"}},
    }
    first, *lines = problems(empty_project, params=wrong).splitlines()
    assert first == "Nothing was run:"
    assert lines[0].startswith("  device is cuda:7, but this PyTorch sees no such device")
    assert lines[0].endswith("the same command, with runtime.device=cpu,runtime.processes=1 added to its --params")
    for line, split in zip(lines[1:4], ("train", "validation", "test"), strict=True):
        assert line.startswith(
            f"  {split}_images: num_classes should be 7, but the images have 10; correct the parameters"
        )
    assert lines[4].startswith("  no Inception weights at /no/such.pth")
    assert len(lines) == 5


def test_each_process_of_a_training_needs_a_gpu(empty_project, finished, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    two = {"runtime": {"device": "cuda", "processes": 2}}
    message = problems(empty_project, params=two)
    assert message.startswith(
        "Nothing was run:\n  processes is 2, but this machine has 1 GPUs: each process needs its own"
    )
    assert message.endswith("with runtime.device=cpu,runtime.processes=1 added to its --params")
    assert len(message.splitlines()) == 2
    assert problems(empty_project, params={"runtime": {"device": "cuda"}}) == ""
    assert problems(finished, "sampling", two) == ""  # trains nothing
    assert problems(finished, "scoring", two) == ""  # one process trains the feature network, whatever is said


@pytest.mark.parametrize(
    ("block", "rows"),
    [
        ("meta_learning.training", 300),
        ("classification.training", 600),  # with a copy of each
        ("diffusion.training", 300),
        ("evaluation.frechet.feature_network", 300),
    ],
)
def test_a_batch_larger_than_what_it_is_drawn_from_is_refused(empty_project, block, rows, monkeypatch):
    def params(size):
        tree = {"batch_size": size}
        for name in reversed(block.split(".")):
            tree = {name: tree}
        return tree

    assert problems(empty_project, params=params(1024)) == ""  # the batches of a preset, on a small set
    monkeypatch.setattr(preflight, "_SMALL_SET", 0)
    assert problems(empty_project, params=params(rows)) == ""
    message = problems(empty_project, params=params(rows + 1))
    assert (
        message == f"Nothing was run:\n  {block}.batch_size is {rows + 1}, but there are {rows} training rows: lower it"
    )


def test_mirror_images_are_rows_of_the_denoiser(empty_project, monkeypatch):
    monkeypatch.setattr(preflight, "_SMALL_SET", 0)
    mirrored = {"functaset": {"mirror_images": True}}

    def denoiser(size):
        return {**mirrored, "diffusion": {"mirror_images": True, "training": {"batch_size": size}}}

    assert problems(empty_project, params=denoiser(600)) == ""
    assert "batch_size is 601, but there are 600 training rows" in problems(empty_project, params=denoiser(601))


def test_augmented_copies_are_rows_of_the_denoiser(empty_project, monkeypatch):
    monkeypatch.setattr(preflight, "_SMALL_SET", 0)

    def denoiser(size):
        return {
            "functaset": {"augmented_copies": 2},
            "diffusion": {"augmented_copies": True, "training": {"batch_size": size}},
        }

    assert problems(empty_project, params=denoiser(900)) == ""
    assert "batch_size is 901, but there are 900 training rows" in problems(empty_project, params=denoiser(901))


def test_a_training_on_a_finished_functaset_knows_its_rows(finished):
    message = problems(finished, "diffusion", {"diffusion": {"training": {"batch_size": 1025}}})
    assert "diffusion.training.batch_size is 1025, but there are 300 training rows" in message


def test_what_another_pipeline_makes_is_named_with_it(empty_project):
    message = problems(empty_project, "classification")
    assert "\n  train_functaset is missing: kedro run --pipeline=functaset_build makes it" in message
    assert "\n  latent_statistics is missing: kedro run --pipeline=normalization_stats makes it" in message
    assert "train_images" not in message


def test_what_was_made_from_other_parameters_is_named_with_them(finished):
    finished_field = {"meta_learning": {"training": {"steps": 31}}}
    assert problems(finished, "functaset_build") == ""
    assert problems(finished, "functaset_build", {"data": {"num_classes": None}}) == ""  # only checks
    message = problems(finished, "functaset_build", finished_field)  # a place of its own, where nothing is yet
    assert "encoder is missing: kedro run --pipeline=meta_learning makes it" in message


def test_only_what_will_run_is_looked_at(finished):
    wrong = {"runtime": {"device": "cuda:7"}}
    assert problems(finished, params=wrong, only_missing=True) == ""
    assert "cuda:7" in problems(finished, params=wrong)


def test_a_functaset_for_which_there_is_no_room_is_refused(empty_project, monkeypatch):
    monkeypatch.setattr(location.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
    lines = problems(empty_project).splitlines()[1:]
    # 600 latents of 4×4×8 float32 numbers; 60 and 100 of them would fit.
    assert lines == [
        "  encoded_train_functaset, encoded_validation_functaset, encoded_test_functaset: 0.00 GB at least are still to be "
        "written, and 0.00 GB are free; make room, or set a filepath in the catalog to a larger disk"
    ]


def test_functasets_on_one_disk_need_room_together(empty_project, monkeypatch):
    """760 latents of 512 bytes are on one disk, 389,120 bytes; 600 of them are the largest functaset."""
    monkeypatch.setattr(location.shutil, "disk_usage", lambda folder: SimpleNamespace(free=389_119))
    assert "encoded_train_functaset, encoded_validation_functaset, encoded_test_functaset: " in problems(empty_project)
    monkeypatch.setattr(location.shutil, "disk_usage", lambda folder: SimpleNamespace(free=389_120))
    assert problems(empty_project) == ""
    disks = {"train": 1, "validation": 2, "test": 2}
    monkeypatch.setattr(
        location.Location, "disk", property(lambda self: disks[self.url.rpartition("encoded_")[2].split("_")[0]])
    )
    monkeypatch.setattr(location.shutil, "disk_usage", lambda folder: SimpleNamespace(free=307_200))
    assert problems(empty_project) == ""
    monkeypatch.setattr(location.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
    (line,) = problems(empty_project).splitlines()[1:]
    assert line.startswith("  encoded_train_functaset: ")


@pytest.fixture
def walks(monkeypatch):
    """The folders that were walked through."""
    walked, scan = [], PictureFolder.scan
    monkeypatch.setattr(PictureFolder, "scan", lambda folder: walked.append(folder) or scan(folder))
    return walked


@pytest.mark.parametrize("end", ["after_pipeline_run", "on_pipeline_error", "refused"])
def test_a_run_walks_through_a_folder_once(tmp_path, walks, end):
    """There may be a million files in it, three splits of it, and many nodes that load them."""
    for name in range(10):
        (tmp_path / str(name)).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / f"{name}/a.png")
    conf = Path(__file__).parents[2] / "conf"
    loader = CONFIG_LOADER_CLASS(str(conf), env="test", runtime_params={}, **CONFIG_LOADER_ARGS)
    size = [16, 16] if end == "refused" else loader["parameters"]["data"]["resolution"]

    def split(*share):
        return ImageFolderDataset(filepath=str(tmp_path), resolution=size, channels=1, share=share)

    catalog = DataCatalog(
        {"train_images": split(0, 0.8), "validation_images": split(0.8, 0.9), "test_images": split(0.9, 1)}
    )
    pipeline = Pipeline([Node(lambda *images: 0, [*catalog], "nothing", name="n")])
    hooks = PreflightHooks()
    hooks.after_catalog_created({"parameters": loader["parameters"]})
    run_params = {"project_path": str(tmp_path / ".project")}
    with pytest.raises(ClickException, match="resolution should be") if end == "refused" else nullcontext():
        hooks.before_pipeline_run(run_params, pipeline, catalog)
        assert [len(catalog.load(name)) for name in catalog] == [8, 1, 1]
    assert walks == [tmp_path]
    if end != "refused":
        getattr(hooks, end)()
    catalog.load("train_images")
    assert walks == [tmp_path, tmp_path]  # what comes after a run sees what has changed


def test_folders_that_cannot_be_written_are_named(empty_project, monkeypatch):
    monkeypatch.setattr(preflight, "why_not_writable", lambda folder: "" if folder.name == "data" else "Read-only")
    models = empty_project.path / "data/06_models"
    models.mkdir()
    assert problems(empty_project) == f"Nothing was run:\n  {models} cannot be written: Read-only"


def test_mlflow_is_not_begun_where_it_cannot_write(monkeypatch, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    context = SimpleNamespace(config_loader={"mlflow": {"server": {"mlflow_tracking_uri": uri}}})
    monkeypatch.setattr(lazy_mlflow, "why_not_writable", lambda folder: f"no {folder}")
    with pytest.raises(ClickException, match=f"{tmp_path} cannot be written \\(no {tmp_path}\\)"):
        lazy_mlflow.LazyMlflowHooks().after_context_created(context)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_not_writable(tmp_path):
    from spatial_functa_pipeline.files import why_not_writable

    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert why_not_writable(tmp_path) == "Permission denied"


def test_commands_that_run_nothing_do_without_what_takes_seconds_to_import():
    """`kedro registry list` reads settings and pipelines."""
    import subprocess

    code = (
        "import sys; import spatial_functa_pipeline.settings; "
        "from spatial_functa_pipeline.pipeline_registry import register_pipelines; register_pipelines(); "
        "slow = ('mlflow', 'torchvision', 'diffusers', 'torch._dynamo', 'distributed'); "
        "print([name for name in slow if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
