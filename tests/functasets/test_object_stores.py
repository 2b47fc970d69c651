"""Functasets in object stores: fsspec's memory, and a server that speaks S3."""

import logging
import uuid

import numpy as np
import pytest

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetReference, write, write_reference


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A bucket on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="lab")
        yield "s3://lab"
    server.stop()


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def place(request) -> str:
    root = "memory://lab" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{root}/{uuid.uuid4().hex}/train_functaset.zarr"


@pytest.mark.parametrize("bits", [None, 5, 8])
def test_what_is_written_is_read(place, make_plan, latents, bits, tmp_path):
    plan = make_plan(latents, bits=bits)
    write(tmp_path / "local.zarr", plan)
    write(place, plan)
    here, there = Functaset.open(tmp_path / "local.zarr"), Functaset.open(place)
    assert here.header == there.header
    np.testing.assert_array_equal(here.rows(0, 11), there.rows(0, 11))
    np.testing.assert_array_equal(here.batch([7, 2, 9]), there.batch([7, 2, 9]))
    np.testing.assert_array_equal(here.labels, there.labels)
    local = {
        str(path.relative_to(here.location.url)) for path in (tmp_path / "local.zarr").rglob("*") if path.is_file()
    }
    assert set(there.location.files()) == local


def test_an_interrupted_build_goes_on_and_a_stale_one_is_replaced(place, make_plan, latents):
    plan = make_plan(latents)
    plan.encode.fails_at = 9
    with pytest.raises(InterruptedError):
        write(place, plan)
    with pytest.raises(ValueError, match="incomplete"):
        Functaset.open(place)
    plan.encode.fails_at = None
    plan.encode.calls.clear()
    write(place, plan)
    assert plan.encode.calls == [(8, 11)]
    other = make_plan(latents + 1, fingerprint="other")
    write(place, other, replace=True)
    np.testing.assert_array_equal(Functaset.open(place).rows(0, 11), latents + 1)


def test_damage_is_noticed_and_mended(place, make_plan, latents):
    import fsspec

    plan = make_plan(latents)
    write(place, plan)
    files, root = fsspec.core.url_to_fs(place)
    file = f"{root}/latents/c/1/0/0/0"
    data = bytearray(files.cat_file(file))
    data[5] ^= 1
    files.pipe_file(file, bytes(data))
    with pytest.raises(DamagedShardError, match="shard 1 of array 'latents'"):
        Functaset.open(place).rows(0, 11)
    plan.encode.calls.clear()
    write(place, plan)
    assert plan.encode.calls == [(4, 8)]
    np.testing.assert_array_equal(Functaset.open(place).rows(0, 11), latents)


def test_there_is_no_functaset(place):
    with pytest.raises(FileNotFoundError, match="no functaset at"):
        Functaset.open(place)


def test_nothing_but_a_functaset_is_replaced(place, make_plan, latents):
    import fsspec

    with fsspec.open(f"{place}/thesis.txt", "w") as file:
        file.write("do not lose")
    with pytest.raises(FileExistsError, match="is not a functaset"):
        write(place, make_plan(latents))


def test_the_catalogs_dataset_keeps_its_record_beside_it(place, make_plan, latents):
    from spatial_functa_pipeline.datasets.fingerprint import Fingerprint
    from spatial_functa_pipeline.datasets.functaset import FunctasetDataset

    dataset = FunctasetDataset(filepath=place)
    dataset.expected = Fingerprint("build", {"seed": 0})
    assert not dataset.exists()
    dataset.save(make_plan(latents))
    assert dataset.exists()
    assert len(dataset.load()) == 11
    dataset.expected = Fingerprint("build", {"seed": 1})
    assert "seed was 0, is 1" in "; ".join(dataset.staleness())


@pytest.mark.slow
def test_workers_reach_the_object_store(s3, latents):
    from dataclasses import replace

    from test_schedulers import real_plan

    place = f"{s3}/{uuid.uuid4().hex}.zarr"
    plan = real_plan()
    write(place, replace(plan, scheduling=Scheduling("processes", workers=1)))
    np.testing.assert_array_equal(Functaset.open(place).rows(0, 100), plan.encode(0, 100).latents)


def test_a_reference_is_followed(place, make_plan, make_functaset, latents):
    write(place, make_plan(latents))
    beside, below = (place.replace("train_functaset", name) for name in ("beside", "a/b/below"))
    for url in (beside, below):
        write_reference(url, FunctasetReference.to(Functaset.open(place), url))
        np.testing.assert_array_equal(Functaset.open(url).rows(0, 11), latents)
    here = make_functaset(latents + 1)  # in another file system
    write_reference(beside, FunctasetReference.to(here, beside), replace=True)
    np.testing.assert_array_equal(Functaset.open(beside).rows(0, 11), latents + 1)
