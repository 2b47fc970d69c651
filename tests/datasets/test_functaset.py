from dataclasses import replace

import numpy as np
import pytest
import zarr
from kedro.io import DataCatalog, DatasetError

from spatial_functa_pipeline.datasets.fingerprint import Fingerprint
from spatial_functa_pipeline.datasets.functaset import FunctasetDataset
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.writing import FunctasetPlan

LATENTS = np.random.default_rng(0).normal(size=(5, 2, 2, 3)).astype(np.float32)
HEADER = FunctasetHeader("toy", "train", LatentShape((2, 2), 3), "linear", 5, "f00", shard_rows=2, chunk_rows=2)


def encode(start: int, stop: int) -> Rows:
    n = stop - start
    return Rows(LATENTS[start:stop], np.arange(start, stop), np.arange(start, stop), np.zeros(n, int), np.full(n, 30.0))


def encode_until_the_power_goes(start: int, stop: int) -> Rows:
    if start >= 2:
        raise InterruptedError("power cut")
    return encode(start, stop)


@pytest.fixture
def dataset(tmp_path) -> FunctasetDataset:
    return FunctasetDataset(filepath=str(tmp_path / "layer" / "train.zarr"), metadata={"kedro-viz": {"layer": "x"}})


def test_it_exists_only_once_it_is_complete(dataset):
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="power cut"):
        dataset.save(FunctasetPlan(HEADER, encode_until_the_power_goes, progress=False))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="incomplete; run again to finish: kedro run --nodes=build_train_functaset"):
        dataset.load()

    encoded = []
    dataset.save(FunctasetPlan(HEADER, lambda *rows: encoded.append(rows) or encode(*rows), progress=False))
    assert encoded == [(2, 4), (4, 5)]
    assert dataset.exists()
    np.testing.assert_array_equal(dataset.load().rows(0, 5), LATENTS)


def test_another_schema_version_does_not_exist_and_is_replaced(dataset, tmp_path):
    plan = FunctasetPlan(HEADER, encode, progress=False)
    dataset.save(plan)
    zarr.open_group(tmp_path / "layer" / "train.zarr", mode="r+").attrs["schema_version"] = 0
    assert not dataset.exists()
    with pytest.raises(
        DatasetError, match=r"schema version 0.*build it again: kedro run --pipeline=functaset_build, with the --env"
    ):
        dataset.load()
    dataset.replace_stale = True
    dataset.save(plan)
    assert dataset.exists()


@pytest.mark.parametrize("expected", [None, Fingerprint("build", {"p": 1})])
def test_it_is_replaced_only_where_it_was_told_so(dataset, expected):
    dataset.expected = expected
    dataset.save(FunctasetPlan(HEADER, encode, progress=False))
    record = dataset._read_record()
    other = FunctasetPlan(replace(HEADER, fingerprint="other"), encode, progress=False)
    with pytest.raises(
        DatasetError, match=r"was not touched: it differs in fingerprint: .*--params runtime\.replace_stale=true"
    ):
        dataset.save(other)
    assert dataset._read_record() == record
    dataset.replace_stale = True
    dataset.save(other)
    assert dataset.load().header.fingerprint.endswith("other")


def test_loading_what_is_missing_says_how_to_build_it(dataset):
    with pytest.raises(DatasetError, match="kedro run --pipeline=functaset_build"):
        dataset.load()


def test_it_is_described_and_previewed_without_reading_rows(dataset, tmp_path):
    dataset.save(FunctasetPlan(HEADER, encode, progress=False))
    for file in (tmp_path / "layer" / "train.zarr").rglob("c/*"):
        if file.is_file():
            file.unlink()
    preview = dataset.preview()
    assert set(preview) == {"index", "columns", "data"}
    assert len(preview["index"]) == len(preview["data"])
    assert all(len(row) == len(preview["columns"]) for row in preview["data"])
    table = dict(preview["data"])
    assert table["latent_shape"] == "2x2x3"
    assert table["rows"] == "5"
    assert table["mean_psnr"] == "30.0"
    assert dataset._describe() == {"filepath": str(tmp_path / "layer" / "train.zarr")}
    assert dataset.metadata == {"kedro-viz": {"layer": "x"}}


def test_it_is_made_from_a_catalog_entry(tmp_path):
    entry = {
        "type": "spatial_functa_pipeline.datasets.functaset.FunctasetDataset",
        "filepath": str(tmp_path / "f.zarr"),
        "metadata": {"kedro-viz": {"layer": "model_input"}},
    }
    catalog = DataCatalog.from_config({"train_functaset": entry})
    catalog.save("train_functaset", FunctasetPlan(HEADER, encode, progress=False))
    assert len(catalog.load("train_functaset")) == 5


@pytest.mark.parametrize(("limit", "held"), [(LATENTS.nbytes, True), (LATENTS.nbytes - 1, False)])
def test_the_catalog_says_how_much_is_held_in_memory(tmp_path, limit, held):
    dataset = FunctasetDataset(filepath=str(tmp_path / "train.zarr"), memory_limit=limit)
    dataset.save(FunctasetPlan(HEADER, encode, progress=False))
    assert dataset.load().in_memory is held


def test_a_store_without_its_record_is_known_by_its_own_fingerprint(tmp_path):
    """As after a copy of the store alone, or a build that was interrupted."""
    path = tmp_path / "train.zarr"
    made, other = Fingerprint("build", {"p": 1}), Fingerprint("build", {"p": 2})
    dataset = FunctasetDataset(filepath=str(path))
    dataset.expected = made
    dataset.save(FunctasetPlan(HEADER, encode, progress=False))
    dataset._write_record(None)
    assert dataset.staleness() == []
    dataset.expected = other
    assert dataset.staleness() == ["train.zarr was begun by another field or with other parameters"]
    with pytest.raises(DatasetError, match="is stale"):
        dataset.load()
