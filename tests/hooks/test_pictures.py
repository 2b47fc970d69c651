"""Folders of pictures are looked through once in a run, before a node reads them."""

import logging

import numpy as np
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from PIL import Image

from spatial_functa_pipeline.datasets.images import ImageFolderDataset
from spatial_functa_pipeline.hooks.advice_table import advice_on
from spatial_functa_pipeline.hooks.pictures import CHECKED_FILES, PictureHooks
from spatial_functa_pipeline.images import checking
from spatial_functa_pipeline.images.checking import BrokenImagesError
from spatial_functa_pipeline.settings import HOOKS


def nothing(*inputs):
    """A node."""


PIPELINE = Pipeline(
    [
        Node(nothing, ["params:runtime"], None, name="other"),
        Node(nothing, ["train_images", "validation_images"], None, name="learn"),
        Node(nothing, ["test_images"], None, name="test"),
    ]
)


class Run:
    """A run in which nodes of the pipeline are run."""

    def __init__(self, project, check=True):
        self.project = project
        folders = {"train_images": "train", "validation_images": "train", "test_images": "test"}
        images = {
            name: ImageFolderDataset(filepath=str(project / folder), resolution=[8, 8], check=check)
            for name, folder in folders.items()
        }
        parameters = {"params:runtime": {"progress": False}, "params:dataset": "mine"}
        self.catalog = DataCatalog({**images, **{key: MemoryDataset(value) for key, value in parameters.items()}})
        self.hooks = PictureHooks()
        self.hooks.before_pipeline_run({"project_path": str(project)}, PIPELINE)

    def nodes(self, *names):
        for name in names:
            (node,) = PIPELINE.only_nodes(name).nodes
            self.hooks.before_node_run(node, self.catalog)


@pytest.fixture
def project(tmp_path):
    for name in ("train/a", "train/b", "test/a"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((9, 9), number, np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch):
    seen = []
    decode = checking.decode_picture
    monkeypatch.setattr(checking, "decode_picture", lambda path: seen.append(path) or decode(path))
    return seen


def test_all_folders_are_checked_at_the_first_node_that_reads_one(project, decoded):
    run = Run(project)
    run.nodes("other")
    assert decoded == []
    run.nodes("learn")
    assert len(decoded) == len(set(decoded)) == 9  # two splits read one folder
    (project / "test/a/0.png").write_bytes(b"")
    run.nodes("test")  # once in a run
    assert len(decoded) == 9


def test_what_was_checked_is_remembered_in_the_project(project, decoded):
    Run(project).nodes("learn")
    assert (project / CHECKED_FILES.format(dataset="mine")).stat().st_size == 9 * 8
    decoded.clear()
    Run(project).nodes("learn")
    assert decoded == []


def test_a_broken_file_of_a_later_nodes_folder_stops_the_first(project):
    (project / "test/a/1.png").write_bytes(b"no picture")
    with pytest.raises(BrokenImagesError, match=r"1 of 3 image files cannot be decoded:\n .*test/a/1\.png") as error:
        Run(project).nodes("learn")
    assert "the same command again" in advice_on(error.value)


def test_the_check_can_be_left_out(project, decoded):
    Run(project, check=False).nodes("learn")
    assert decoded == []


def test_what_is_left_out_is_said_in_one_line_of_a_run(project, caplog):
    (project / "train/c").mkdir()
    (project / "train/a/film.mov").touch()
    run = Run(project)
    with caplog.at_level(logging.WARNING):
        run.nodes("learn", "test")
    (record,) = caplog.records
    assert record.message == f"{project / 'train'}: left out 1 .mov file, the folder c, without a picture"


def test_kedro_calls_it():
    assert any(isinstance(hook, PictureHooks) for hook in HOOKS)
