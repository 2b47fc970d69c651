"""Folders of pictures are looked through once before a run."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from PIL import Image

from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset
from spatial_functa_pipeline.datasets.weights import CheckpointDataset
from spatial_functa_pipeline.hooks.preflight import CHECKED_FILES, PlannedRun, file_problems
from spatial_functa_pipeline.images import checking
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = str(Path(__file__).parents[2] / "conf")
IMAGES = {"train_images": "train", "validation_images": "train", "test_images": "test"}


def nothing(*inputs):
    """A node."""


@pytest.fixture(scope="module")
def parameters():
    conf = CONFIG_LOADER_CLASS(CONF, env="test", runtime_params={"dataset": "mine"}, **CONFIG_LOADER_ARGS)
    return PipelineParameters.model_validate(conf["parameters"])


@pytest.fixture
def project(tmp_path):
    for name in ("train/a", "train/b", "test/a"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((9, 9), number, np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def problems(project, parameters):
    """What is said of a run of nodes that read these."""

    def look(*names, check=True):
        images = {
            name: ImageFolderDataset(filepath=str(project / folder), resolution=[8, 8], check=check)
            for name, folder in IMAGES.items()
        }
        nodes = Pipeline([Node(nothing, name, None, name=f"read_{name}") for name in names or IMAGES]).nodes
        return list(file_problems(PlannedRun(nodes, DataCatalog(images), parameters, project)))

    return look


@pytest.fixture
def decoded(monkeypatch):
    seen = []
    decode = checking.decode_picture
    monkeypatch.setattr(checking, "decode_picture", lambda path: seen.append(path) or decode(path))
    return seen


def test_each_folder_is_checked_once_and_remembered_in_the_project(problems, project, decoded):
    assert problems() == []
    assert len(decoded) == len(set(decoded)) == 9  # two splits read one folder
    assert (project / CHECKED_FILES.format(dataset="mine")).stat().st_size == 9 * 8
    assert problems() == []
    assert len(decoded) == 9


def test_only_what_will_be_read_is_checked(problems, decoded):
    assert problems("test_images") == []
    assert len(decoded) == 3


def test_broken_files_of_all_folders_are_named_with_advice(problems, project):
    for name in ("train/b/0.png", "test/a/1.png"):
        (project / name).write_bytes(b"no picture")
    second, first = sorted(problems())
    assert first.startswith(f"1 of 6 image files cannot be decoded:\n    {project}/train/b/0.png: ")
    assert second.startswith(f"1 of 3 image files cannot be decoded:\n    {project}/test/a/1.png: ")
    assert "\n  replace or remove these files, and run the same command again" in first


def test_trainings_on_the_broken_files_may_go_on_without_them(project, parameters):
    """Those that have begun, and that read this folder."""
    read_by = {
        "field": "train_images",
        "feature_network": "train_images",
        "other": "test_images",
        "denoiser": "latents",
    }
    names = {training: f"{training}_checkpoint" for training in read_by}
    data = {name: CheckpointDataset(filepath=str(project / f"{training}.pt")) for training, name in names.items()}
    images = {
        name: ImageFolderDataset(filepath=str(project / folder), resolution=[8, 8]) for name, folder in IMAGES.items()
    }
    for training in set(read_by) - {"feature_network"}:
        data[names[training]].load().write({"images": {"count": 6}}, {"step": 3})
    nodes = Pipeline([Node(nothing, [read_by[one], names[one]], None, name=one) for one in read_by]).nodes
    (project / "train/b/0.png").write_bytes(b"no picture")
    assert len(list(file_problems(PlannedRun(nodes, DataCatalog(data | images), parameters, project)))) == 1
    assert not (project / "feature_network.pt").exists()
    saved = {path.stem: torch.load(path) for path in project.glob("*.pt")}
    assert {name for name, content in saved.items() if content["unreadable_image"]} == {"field"}
    assert saved["field"] == saved["other"] | {"unreadable_image": True}  # nothing else has changed
    assert data["field_checkpoint"].load().read({"images": {"count": 5}}) == {"step": 3}


def test_the_check_can_be_left_out(problems, decoded):
    assert problems(check=False) == []
    assert decoded == []


def test_what_is_left_out_is_said_in_one_line(problems, project, caplog):
    (project / "train/c").mkdir()
    (project / "train/a/film.mov").touch()
    with caplog.at_level(logging.WARNING):
        problems()
    (record,) = caplog.records
    assert record.message == f"{project / 'train'}: left out 1 .mov file, the folder c, without a picture"
