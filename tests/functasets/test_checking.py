"""The check of a whole functaset."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from spatial_functa_pipeline.functasets.checking import check
from spatial_functa_pipeline.functasets.writing import FunctasetReference, write, write_reference


@pytest.fixture(params=[None, 6])
def path(request, tmp_path, make_plan, latents) -> Path:
    write(tmp_path / "f.zarr", make_plan(latents, bits=request.param))
    return tmp_path / "f.zarr"


def problems(path: Path) -> str:
    return "\n".join(check(path, progress=False).problems)


def test_a_sound_functaset(path):
    report = check(path, progress=False)
    assert report.problems == []
    assert not report.mendable
    assert (report.rows, report.shards, report.mean_psnr) == (11, 3, 25.0)
    assert report.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("column", ["latents", "labels", "source_index", "augmentation", "psnr"])
def test_every_damaged_shard_is_named(path, column):
    for shard in (0, 2):
        file = path / column / "c" / str(shard) / ("0/0/0" if column == "latents" else "")
        data = bytearray(file.read_bytes())
        data[3] ^= 4
        file.write_bytes(data)
    found = problems(path)
    assert f"shard 0 of array '{column}'" in found
    assert f"shard 2 of array '{column}'" in found
    assert "shard 1" not in found
    assert check(path, progress=False).mendable


def test_an_incomplete_functaset(tmp_path, make_plan, latents):
    plan = make_plan(latents)
    plan.encode.fails_at = 9
    with pytest.raises(InterruptedError):
        write(tmp_path / "f.zarr", plan)
    found = check(tmp_path / "f.zarr", progress=False)
    assert found.problems == ["2 of 3 shards are there"]
    assert (found.split, found.mendable) == ("train", True)


def test_latents_that_are_not_finite(path):
    group = zarr.open_group(path, mode="r+")
    name = "ranges" if "ranges" in group else "latents"
    values = group[name][:]
    values[0, 0, 0, 1] = np.nan
    group[name][:] = values
    found = {"ranges": "the ranges of its codes are not finite", "latents": "shard 0 has latents that are not finite"}
    assert found[name] in problems(path)


def test_damaged_ranges_are_named(tmp_path, make_plan, latents):
    write(tmp_path / "q.zarr", make_plan(latents, bits=6))
    (tmp_path / "q.zarr/ranges/c/0/0/0/0").unlink()
    found = check(tmp_path / "q.zarr", progress=False)
    assert "array 'ranges'" in found.problems[0]
    assert (found.mendable, found.quantised) == (True, True)


def test_a_reference_is_sound_if_what_it_refers_to_can_be_opened(tmp_path, make_functaset, latents):
    functaset = make_functaset(latents)
    write_reference(tmp_path / "r.zarr", FunctasetReference.to(functaset, tmp_path / "r.zarr"))
    found = check(tmp_path / "r.zarr", progress=False)
    assert (found.problems, found.rows, found.mean_psnr) == ([], 11, 25.0)
    shutil.rmtree(functaset.location.url)
    assert "it refers to another one: there is no functaset at" in problems(tmp_path / "r.zarr")


def test_what_does_not_belong_there(path):
    (path / "psnr/c/0.1234.partial").touch()
    assert "psnr/c/0.1234.partial was left by a process that was killed" in problems(path)


def test_another_schema_another_mean_and_a_missing_array(path):
    group = zarr.open_group(path, mode="r+")
    group.attrs["mean_psnr"] = 31.0
    assert "the mean PSNR is 25.0, but 31.0 is recorded" in problems(path)
    del group["labels"]
    assert "the array labels is missing" in problems(path)
    group.attrs["schema_version"] = 1
    assert "schema version 1, but this is version 3" in problems(path)


def test_there_is_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "f.zarr")
