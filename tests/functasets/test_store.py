import errno
import logging
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    IncompleteFunctasetError,
    MissingFunctasetError,
    NonFiniteLatentError,
    NoRoomError,
    SchemaVersionError,
    StaleFunctasetError,
)
from spatial_functa_pipeline.functasets.format import NO_SOURCE, Rows, read_attributes
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, FunctasetReference, write, write_reference


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def flip_a_byte(file: Path, position: int = 5) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def interrupt(path: Path, plan: FunctasetPlan, row: int) -> None:
    """Write until the encoder reaches `row`."""
    plan.encode.fails_at = row
    with pytest.raises(InterruptedError):
        write(path, plan)
    plan.encode.fails_at = None
    plan.encode.calls.clear()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 3, 2), (2, 2, 3, 1)])
@pytest.mark.parametrize("rows", [1, 11])
def test_what_is_written_is_read(tmp_path, make_plan, shape, dtype, rows):
    latents = np.random.default_rng(rows).normal(size=(rows, 2, *shape)).astype(np.float32)
    plan = make_plan(latents, storage_type=dtype)
    write(tmp_path / "f.zarr", plan)
    functaset = Functaset.open(tmp_path / "f.zarr")

    assert functaset.header == plan.header
    assert len(functaset) == rows
    assert functaset.latent_shape == LatentShape((2, *shape[:-1]), shape[-1])

    assert functaset.rows(0, rows).dtype == np.float32
    np.testing.assert_array_equal(functaset.rows(0, rows), latents.astype(dtype).astype(np.float32))
    for column in ("labels", "source_index", "augmentation", "psnr"):
        np.testing.assert_array_equal(getattr(functaset, column), getattr(plan.encode.all, column))
    types = [getattr(functaset, name).dtype for name in ("labels", "source_index", "augmentation", "psnr")]
    assert types == [np.int64, np.int64, np.int32, np.float32]
    assert functaset.mean_psnr == pytest.approx(20 + (rows - 1) / 2)


def test_rows_may_cross_shards_but_not_the_end(make_functaset, latents):
    functaset = make_functaset(latents)
    for start in range(12):
        for stop in range(start, 12):
            np.testing.assert_array_equal(functaset.rows(start, stop), latents[start:stop])
    for start, stop in ((0, 12), (-1, 3), (5, 4)):
        with pytest.raises(IndexError, match="11 rows"):
            functaset.rows(start, stop)


def test_each_whole_shard_is_encoded_once_in_order(tmp_path, make_plan, latents):
    plan = make_plan(latents)
    write(tmp_path / "f.zarr", plan)
    assert plan.encode.calls == [(0, 4), (4, 8), (8, 11)]
    files = [file for file in contents(tmp_path / "f.zarr") if file.startswith("latents/c/")]
    assert len(files) == 3


def test_resuming_encodes_the_missing_shards_only_and_gives_the_same_bytes(tmp_path, make_plan, latents):
    resumed, whole = make_plan(latents), make_plan(latents)
    interrupt(tmp_path / "resumed.zarr", resumed, row=9)
    write(tmp_path / "resumed.zarr", resumed)
    write(tmp_path / "whole.zarr", whole)
    assert resumed.encode.calls == [(8, 11)]
    assert contents(tmp_path / "resumed.zarr") == contents(tmp_path / "whole.zarr")


def test_a_complete_functaset_is_left_alone(tmp_path, make_plan, latents):
    plan = make_plan(latents)
    write(tmp_path / "f.zarr", plan)
    before = contents(tmp_path / "f.zarr")
    plan.encode.calls.clear()
    write(tmp_path / "f.zarr", plan)
    assert plan.encode.calls == []
    assert contents(tmp_path / "f.zarr") == before


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"chunk_rows": 1}, {"split": "test"}])
@pytest.mark.parametrize("complete", [True, False])
def test_a_functaset_with_another_header_is_replaced(tmp_path, make_plan, latents, caplog, change, complete):
    path = tmp_path / "f.zarr"
    if complete:
        write(path, make_plan(latents))
    else:
        interrupt(path, make_plan(latents), row=5)
    plan = make_plan(latents + 1, **change)
    with caplog.at_level(logging.WARNING):
        write(path, plan, replace=True)
    assert len(plan.encode.calls) == 3
    np.testing.assert_array_equal(Functaset.open(path).rows(0, 11), latents + 1)
    (name,) = change
    assert f"differs in {name}:" in caplog.text
    assert [child.name for child in tmp_path.iterdir()] == ["f.zarr"]


def test_nothing_but_a_functaset_is_ever_replaced(tmp_path, make_plan, latents):
    (tmp_path / "thesis.txt").write_text("do not lose")
    zarr.create_group(tmp_path / "other.zarr")
    for path in (tmp_path, tmp_path / "thesis.txt", tmp_path / "other.zarr"):
        with pytest.raises(FileExistsError, match="is not a functaset"):
            write(path, make_plan(latents))
    assert (tmp_path / "thesis.txt").read_text() == "do not lose"


def test_a_functaset_that_cannot_be_used_does_not_open(tmp_path, make_plan, latents):
    path = tmp_path / "f.zarr"
    with pytest.raises(MissingFunctasetError, match=r"no functaset at .*f\.zarr"):
        Functaset.open(path)
    plan = make_plan(latents)
    interrupt(path, plan, row=5)
    with pytest.raises(IncompleteFunctasetError, match=r"f\.zarr is incomplete") as error:
        Functaset.open(path)
    assert error.value.split == "train"
    write(path, plan)
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 0
    with pytest.raises(SchemaVersionError, match="schema version 0"):
        Functaset.open(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_latent_that_is_not_finite_is_refused_with_its_row(tmp_path, make_plan, latents, value):
    latents[6, 1, 0, 2] = value
    with pytest.raises(NonFiniteLatentError, match="train functaset: the latent of row 6 is not finite as float32"):
        write(tmp_path / "f.zarr", make_plan(latents))


def test_float16_refuses_what_it_cannot_hold(tmp_path, make_plan, latents):
    latents[3, 0, 0, 0] = 1e5
    write(tmp_path / "f32.zarr", make_plan(latents))
    with pytest.raises(NonFiniteLatentError, match="row 3 is not finite as float16"):
        write(tmp_path / "f16.zarr", make_plan(latents, storage_type="float16"))


@pytest.mark.parametrize("column", ["latents", "labels", "source_index", "augmentation", "psnr"])
def test_a_column_of_a_wrong_shape_is_refused(tmp_path, make_plan, latents, column):
    plan = make_plan(latents)
    rows = plan.encode(0, 4)
    short = replace(rows, **{column: getattr(rows, column)[:3]})
    with pytest.raises(ValueError, match=rf"rows 0:4: {column} has shape \(3,"):
        write(tmp_path / "f.zarr", replace(plan, encode=lambda start, stop: short))


def test_a_column_that_would_lose_its_fractions_is_refused(tmp_path, make_plan, latents):
    plan = make_plan(latents, rows=4)
    fractional = replace(plan.encode(0, 4), labels=np.full(4, 0.5))
    with pytest.raises(TypeError, match="same_kind"):
        write(tmp_path / "f.zarr", replace(plan, encode=lambda start, stop: fractional))


@pytest.mark.parametrize(
    "error",
    [
        MissingFunctasetError("f.zarr"),
        IncompleteFunctasetError("f.zarr", "train"),
        SchemaVersionError("f.zarr", 1, 2),
        DamagedShardError("f.zarr", "train", 3, "labels/c/3", "is lost or truncated"),
        StaleFunctasetError("f.zarr", "rows: 1, now 2"),
        NoRoomError(errno.EDQUOT, "f.zarr", 3, 7, "Disk quota exceeded"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_reaches_another_process_with_all_its_facts(error):
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert "f.zarr" in str(error)
    assert (type(again), vars(again)) == (type(error), vars(error))


def test_no_rows_at_all_are_refused(make_plan):
    with pytest.raises(ValueError, match="at least one row"):
        make_plan(np.zeros((0, 2, 2, 3), np.float32))


@pytest.mark.parametrize("column", ["latents", "labels", "source_index", "augmentation", "psnr"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_damage_is_noticed_and_mended_by_another_run(tmp_path, make_plan, latents, caplog, column, damage):
    path, plan = tmp_path / "f.zarr", make_plan(latents)
    write(path, plan)
    before = contents(path)
    file = path / column / "c" / "1" / ("0/0/0" if column == "latents" else "")
    if damage == "flip":
        flip_a_byte(file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()

    functaset = Functaset.open(path)
    with pytest.raises(DamagedShardError, match=rf"f\.zarr: shard 1 of array '{column}' \({column}/c/1"):
        _ = functaset.rows(0, 11) if column == "latents" else getattr(functaset, column)
    plan.encode.calls.clear()
    with caplog.at_level(logging.WARNING):
        write(path, plan)
    assert plan.encode.calls == [(4, 8)]
    if (column, damage) != ("psnr", "remove"):  # without it the shard is one that was never finished
        assert f"shard 1 of array '{column}'" in caplog.text
    assert contents(path) == before


def test_damage_in_the_last_shard_that_is_not_full_is_mended(tmp_path, make_plan, latents):
    path, plan = tmp_path / "f.zarr", make_plan(latents)
    write(path, plan)
    before = contents(path)
    flip_a_byte(path / "latents/c/2/0/0/0", position=-1)  # the shard's index
    plan.encode.calls.clear()
    write(path, plan)
    assert plan.encode.calls == [(8, 11)]
    assert contents(path) == before


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_batch_notices_damage(tmp_path, make_plan, latents, memory_limit):
    write(tmp_path / "f.zarr", make_plan(latents))
    flip_a_byte(tmp_path / "f.zarr/latents/c/1/0/0/0")
    with pytest.raises(DamagedShardError, match="shard 1 of array 'latents'"):
        Functaset.open(tmp_path / "f.zarr", memory_limit).batch([5, 0])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_batch_is_indexing(tmp_path, make_plan, latents, dtype, memory_limit):
    write(tmp_path / "f.zarr", make_plan(latents, storage_type=dtype))
    functaset = Functaset.open(tmp_path / "f.zarr", memory_limit)
    stored = latents.astype(dtype).astype(np.float32)
    rng = np.random.default_rng(1)
    for indices in (rng.integers(0, 11, size=30), rng.permutation(11), np.array([10]), np.array([], dtype=int)):
        for given in (indices, indices.tolist(), torch.from_numpy(indices)):
            batch = functaset.batch(given)
            assert batch.dtype == torch.float32
            np.testing.assert_array_equal(batch.numpy(), stored[indices])
    for outside in ([0, 11], [-1]):
        with pytest.raises(IndexError, match="11 rows"):
            functaset.batch(outside)


def test_a_batch_may_be_changed_without_changing_the_functaset(make_functaset, latents):
    functaset = make_functaset(latents)
    functaset.batch([2, 3]).zero_()
    np.testing.assert_array_equal(functaset.batch([2, 3]).numpy(), latents[[2, 3]])


def test_beyond_the_memory_limit_a_batch_reads_only_the_chunks_it_needs(tmp_path, make_plan, latents, monkeypatch):
    write(tmp_path / "f.zarr", make_plan(latents))
    functaset = Functaset.open(tmp_path / "f.zarr", memory_limit=latents.nbytes - 1)
    read, reads = functaset._read, []
    monkeypatch.setattr(functaset, "_read", lambda *args: reads.append(args) or read(*args))
    functaset.batch([10, 0, 5, 1, 4])
    assert reads == [("latents", 0, 2), ("latents", 4, 6), ("latents", 10, 11)]


def test_pickled_functasets_open_their_own_files(make_functaset, latents):
    functaset = make_functaset(latents)
    functaset.batch([0])
    pickled = pickle.dumps(functaset)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy.header == functaset.header
    np.testing.assert_array_equal(copy.batch([7, 1]).numpy(), latents[[7, 1]])


def test_samples_have_no_source_and_need_no_psnr(tmp_path, make_plan, latents):
    plan = make_plan(latents, split="samples")
    labels = np.arange(11)
    write(
        tmp_path / "s.zarr",
        replace(plan, encode=lambda start, stop: Rows.of_samples(latents[start:stop], labels[start:stop])),
    )
    samples = Functaset.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(samples.labels, labels)
    assert (samples.source_index == NO_SOURCE).all()
    assert (samples.augmentation == 0).all()
    assert np.isnan(samples.psnr).all()
    assert samples.mean_psnr is None
    assert read_attributes(tmp_path / "s.zarr")["mean_psnr"] is None


def test_samples_may_have_a_psnr(latents):
    rows = Rows.of_samples(latents, np.zeros(11, int), psnr=np.full(11, 30.0))
    np.testing.assert_array_equal(rows.psnr, 30.0)


def test_the_number_of_classes_is_that_of_their_names(tmp_path, make_plan, latents):
    """A class may have no row; a functaset that does not name its classes has as many as there are labels."""
    for classes, count in ((("a", "b", *"cdefghijkl"), 12), ((), 10)):
        write(tmp_path / f"{count}.zarr", replace(make_plan(latents), classes=classes))
        opened = Functaset.open(tmp_path / f"{count}.zarr")
        assert (opened.classes, opened.num_classes) == (classes, count)


def test_attributes_describe_the_functaset(make_functaset, latents):
    assert read_attributes(make_functaset(latents).location.url) == {
        "schema_version": 3,
        "dataset": "toy",
        "split": "train",
        "latent_shape": "2x2x3",
        "interpolation": "nearest",
        "rows": 11,
        "fingerprint": "f00",
        "images": "",
        "shard_rows": 4,
        "chunk_rows": 2,
        "storage_type": "float32",
        "bits": None,
        "settings": {},
        "refers_to": None,
        "complete": True,
        "mean_psnr": 25.0,
        "classes": [],
    }


def test_progress_shows_rows_and_mean_psnr(tmp_path, make_plan, latents, capsys):
    plan = make_plan(latents)
    interrupt(tmp_path / "f.zarr", plan, row=9)
    write(tmp_path / "f.zarr", replace(plan, progress=True))
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert "toy train: 100%" in last
    assert "11/11" in last
    assert "image" in last
    assert "25.00 dB" in last


def test_a_reference_has_no_rows_of_its_own(tmp_path, make_functaset, latents):
    functaset = make_functaset(latents)
    path = tmp_path / "elsewhere/bits=6/train.zarr"
    write_reference(path, FunctasetReference.to(functaset, path))
    assert sorted(contents(path)) == ["zarr.json"]
    assert read_attributes(path)["refers_to"] == "../../made.zarr"
    found = Functaset.open(path)
    assert found.header == functaset.header
    assert found.mean_psnr == 25.0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).rows(0, 11), latents)


def test_a_reference_and_what_it_refers_to_may_be_moved_together(tmp_path, make_functaset, latents):
    path = tmp_path / "train.zarr"
    write_reference(path, FunctasetReference.to(make_functaset(latents), path))
    for name in ("train.zarr", "made.zarr"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "moved" / name)
    np.testing.assert_array_equal(Functaset.open(tmp_path / "moved/train.zarr").rows(0, 11), latents)
    with pytest.raises(MissingFunctasetError, match=r"train\.zarr"):
        Functaset.open(path)


def test_a_reference_and_a_store_replace_each_other_only_by_intent(tmp_path, make_plan, make_functaset, latents):
    path = tmp_path / "train.zarr"
    reference = FunctasetReference.to(make_functaset(latents), path)
    write(path, make_plan(latents + 1))
    with pytest.raises(StaleFunctasetError, match=r"refers_to: None, now 'made\.zarr'"):
        write_reference(path, reference)
    write_reference(path, reference, replace=True)
    np.testing.assert_array_equal(Functaset.open(path).rows(0, 11), latents)
    with pytest.raises(StaleFunctasetError, match=r"refers_to: 'made\.zarr', now None"):
        write(path, make_plan(latents + 1))
    write(path, make_plan(latents + 1), replace=True)
    np.testing.assert_array_equal(Functaset.open(path).rows(0, 11), latents + 1)
