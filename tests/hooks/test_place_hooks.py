"""What names a folder of outputs is written there before anything else is."""

import json

import pytest
from kedro.io import DataCatalog
from kedro.pipeline.node import node

from spatial_functa_pipeline.config.places import PARAMETERS_FILE, Change, Places
from spatial_functa_pipeline.datasets.functaset import FunctasetDataset
from spatial_functa_pipeline.datasets.weights import CheckpointDataset, WeightsDataset
from spatial_functa_pipeline.hooks.places import PlaceHooks


@pytest.fixture
def hooks():
    places = Places("toy", "4x4x8-nearest", (Change("seed", 1, frozenset({"seed"})),))
    assert places.of("seed", "meta_learning") == "toy/4x4x8-nearest/seed=1"
    hooks = PlaceHooks()
    hooks._places = places
    return hooks


def begin(hooks, inputs, outputs):
    catalog = DataCatalog({**inputs, **outputs})
    hooks.before_node_run(node(lambda *_: None, [*inputs, "params:seed"], [*outputs], name="train"), catalog)


def test_a_training_that_begins_says_what_names_its_folder(tmp_path, hooks):
    folder = tmp_path / "06_models/toy/4x4x8-nearest/seed=1"
    checkpoint = {"checkpoint": CheckpointDataset(filepath=f"{folder}/checkpoints/field.pt")}
    begin(hooks, checkpoint, {"field": WeightsDataset(filepath=f"{tmp_path}/elsewhere/field.safetensors")})
    assert json.loads((folder / PARAMETERS_FILE).read_text()) == {"seed": 1}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [PARAMETERS_FILE]
    (folder / PARAMETERS_FILE).write_text("kept")
    begin(hooks, checkpoint, {})
    assert (folder / PARAMETERS_FILE).read_text() == "kept"


def test_other_folders_and_object_stores_are_left_alone(tmp_path, hooks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = WeightsDataset(filepath=f"{tmp_path}/06_models/toy/4x4x8-nearest/field.safetensors")
    stored = FunctasetDataset(filepath="memory://bucket/toy/4x4x8-nearest/seed=1/train_functaset.zarr")
    begin(hooks, {"field": preset}, {"train_functaset": stored})
    assert not list(tmp_path.rglob("*"))
