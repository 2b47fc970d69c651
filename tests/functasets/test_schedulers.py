"""Builds by other processes: the same bytes, dead workers, object stores, full disks, kill -9."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from processes import start

from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.datasets.images import FashionMNISTDataset
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.functasets.errors import StaleFunctasetError
from spatial_functa_pipeline.functasets.format import Rows
from spatial_functa_pipeline.functasets.requantising import Pictures, quantised
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.images import Images

SAMPLE = Path(__file__).parents[2] / "data/01_raw/fashion_mnist_sample"


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


RUNTIME = RuntimeConfig(device="cpu", progress=False)
CROP = AugmentationConfig(crop_padding=4)


def real_field() -> SpatialField:
    """An untrained one."""
    torch.manual_seed(0)
    return SpatialField(FieldSpec(LatentShape((4, 4), 6), (32, 32), 1, "nearest", 32, 3, 10.0)).eval()


def real_images() -> Images:
    """50 embedded images."""
    return FashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=[0, 50]).load()


def real_plan(shard_rows=16, seed=3, augmentation=CROP, **runtime) -> FunctasetPlan:
    """The images and a copy of each, in 7 shards."""
    return plan_functaset(
        real_images(),
        real_field(),
        FunctasetConfig(
            augmented_copies=1,
            shard_rows=shard_rows,
            chunk_rows=8,
            encode_batch=4,
            augmentation=augmentation,
        ),
        dataset="d",
        split="train",
        copies=1,
        fingerprint="f",
        seed=seed,
        runtime=RuntimeConfig(device="cpu", progress=False, **runtime),
    )


def quantised_plan(encoded: Path, bits: int) -> FunctasetPlan:
    """What `real_plan` has written there, at `bits` bits."""
    return quantised(Functaset.open(encoded), bits, Pictures(real_images(), CROP, 3), real_field(), RUNTIME)


def distorted_plan(seed) -> FunctasetPlan:
    """With ImageNet's augmentation, which draws from PyTorch's generator."""
    distorted = AugmentationConfig(crop_padding=0, resized_crop=True, randaugment_operations=2)
    return real_plan(seed=seed, augmentation=distorted)


class DyingEncoder:
    """Kills its worker the first time that a row is asked for."""

    def __init__(self, plan: FunctasetPlan, row: int, marker: Path) -> None:
        self.plan, self.row, self.marker = plan, row, marker

    def __call__(self, start: int, stop: int) -> Rows:
        if start <= self.row < stop and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.plan.encode(start, stop)


def test_threads_write_the_same_bytes(tmp_path):
    write(tmp_path / "one.zarr", real_plan())
    write(tmp_path / "two.zarr", replace(real_plan(), scheduling=Scheduling("threads", workers=3)))
    assert contents(tmp_path / "two.zarr") == contents(tmp_path / "one.zarr")


def test_an_error_in_a_thread_reaches_the_caller_and_stops_the_others(tmp_path):
    done = []

    def fail_at_the_third(start: int, stop: int) -> Rows:
        done.append(start)
        if len(done) == 3:
            raise ZeroDivisionError
        return plan.encode(start, stop)

    plan = real_plan(shard_rows=8)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "f.zarr", replace(plan, encode=fail_at_the_third, scheduling=Scheduling("threads", workers=1)))
    assert len(done) < 13


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 6])
def test_a_local_cluster_writes_the_same_bytes_and_survives_a_dead_worker(tmp_path, bits, forked_workers):
    plan = real_plan()
    if bits:
        write(tmp_path / "encoded.zarr", plan)
        plan = quantised_plan(tmp_path / "encoded.zarr", bits)
    write(tmp_path / "one.zarr", plan)
    dying = DyingEncoder(plan, 20, tmp_path / "marker")
    write(tmp_path / "two.zarr", replace(plan, encode=dying, scheduling=Scheduling("processes", workers=2)))
    assert (tmp_path / "marker").exists()
    assert contents(tmp_path / "two.zarr") == contents(tmp_path / "one.zarr")


@pytest.mark.slow
def test_a_running_scheduler_is_used_by_its_address(tmp_path):
    from distributed import LocalCluster

    plan = real_plan()
    write(tmp_path / "one.zarr", plan)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        write(tmp_path / "two.zarr", replace(plan, scheduling=Scheduling(cluster.scheduler_address)))
    assert contents(tmp_path / "two.zarr") == contents(tmp_path / "one.zarr")


@pytest.mark.slow
def test_an_error_in_a_worker_reaches_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError):
        write(
            tmp_path / "f.zarr",
            replace(real_plan(), encode=_divide_by_zero, scheduling=Scheduling("processes", workers=1)),
        )
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    assert not [name for name in changed if name.endswith("_NUM_THREADS")]  # those of the workers stay with the workers


def _divide_by_zero(start: int, stop: int) -> Rows:
    raise ZeroDivisionError


def build(path, encoded, bits):
    """In another process."""
    write(path, quantised_plan(encoded, bits) if bits else real_plan(shard_rows=8), replace=True)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
    """Twenty kills from the first file on, of floats and codes, of new builds and of such that replace a stale one."""
    kinds, shards, encoded = (None, 4), 13, tmp_path / "encoded"
    write(encoded, real_plan(shard_rows=8))

    def plan(kind, fingerprint=None):
        made = quantised_plan(encoded, kind) if kind else real_plan(shard_rows=8)
        return replace(made, header=replace(made.header, fingerprint=fingerprint or made.header.fingerprint))

    wholes = {}
    for kind in kinds:
        write(tmp_path / f"whole{kind}", plan(kind))
        wholes[kind] = contents(tmp_path / f"whole{kind}")
    chance, killed, trial = random.Random(0), 0, 0
    while killed < 20 and trial < 80:
        kind, stale, path = kinds[trial % 2], trial % 4 > 1, tmp_path / f"trial{trial}"
        if stale:
            write(path, plan(kind, "other"))
        process = start(build, path, encoded, kind)
        while process.is_alive() and (len(list(path.glob("psnr/c/*"))) == shards if stale else not path.exists()):
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        write(path, plan(kind), replace=True)
        assert contents(path) == wholes[kind], (trial, stale)
        trial += 1
    assert killed == 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only a superuser can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_build_which_goes_on_when_there_is_room(tmp_path, small_disk):
    plan, whole, path = real_plan(), tmp_path / "whole.zarr", small_disk / "f.zarr"
    write(whole, plan)
    with pytest.raises(
        OSError, match=r"no room left for functaset .*: [1-6] of its 7 shards are finished and kept"
    ) as error:
        write(path, plan)
    assert error.value.errno == errno.ENOSPC
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    write(path, plan)
    assert contents(path) == contents(whole)


def test_a_build_that_cannot_fit_is_refused_before_it_begins(tmp_path, monkeypatch):
    plan, path = real_plan(), tmp_path / "f.zarr"
    latents = 100 * 4 * 4 * 6 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=latents - 1))
    with pytest.raises(OSError, match=r"no room left .*0 of its 7 shards .*0.00 GB at least are still to be written"):
        write(path, replace(plan, encode=None))
    assert not path.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=latents))
    write(path, plan)
    # What is there already needs no room.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    write(path, plan)


def test_a_disk_without_room_stops_the_build_and_keeps_what_is_there(tmp_path):
    """A limit on the size of files stands for a full disk where nobody may mount one."""
    plan, whole = real_plan(), tmp_path / "whole.zarr"
    write(whole, plan)
    path, rows = tmp_path / "f.zarr", []

    def encode(start: int, stop: int) -> Rows:
        rows.append(start)
        if start >= 48:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        return plan.encode(start, stop)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match=r"no room left for functaset .*: 3 of its 7 shards are finished and kept"):
            write(path, replace(plan, encode=encode))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    rows.clear()
    write(path, replace(plan, encode=lambda start, stop: rows.append(start) or plan.encode(start, stop)))
    assert rows == [48, 64, 80, 96]
    assert contents(path) == contents(whole)


@pytest.mark.parametrize("left", [[], ["zarr.json.0123.partial"]], ids=["empty", "partial"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_build_killed_before_there_was_anything_goes_on(tmp_path, left, replaces):
    plan, path, whole = real_plan(), tmp_path / "f.zarr", tmp_path / "whole.zarr"
    path.mkdir()
    for name in left:
        (path / name).touch()
    for at in (path, whole):
        write(at, plan, replace=replaces)
    assert contents(path) == contents(whole)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="exists and is not a functaset"):
        write(tmp_path, real_plan())
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


@pytest.mark.slow
def test_builds_at_once_by_the_same_workers_keep_apart(tmp_path, forked_workers):
    """Each worker has several threads; the images are distorted with PyTorch's own random numbers."""
    from distributed import LocalCluster

    plans = {name: distorted_plan(seed) for seed, name in enumerate(("a", "b"))}
    for name, plan in plans.items():
        write(tmp_path / f"{name}_alone.zarr", plan)
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address=None) as cluster,
        ThreadPoolExecutor(2) as threads,
    ):
        scheduling = Scheduling(cluster.scheduler_address)
        builds = [
            threads.submit(write, tmp_path / f"{name}.zarr", replace(plan, scheduling=scheduling))
            for name, plan in plans.items()
        ]
        for build in builds:
            build.result()
    for name in plans:
        assert contents(tmp_path / f"{name}.zarr") == contents(tmp_path / f"{name}_alone.zarr")


def test_a_stale_functaset_is_replaced_only_by_intent(tmp_path):
    plan, path = real_plan(), tmp_path / "f.zarr"
    write(path, plan)
    before = contents(path)
    other = replace(plan, header=replace(plan.header, fingerprint="other"))
    with pytest.raises(StaleFunctasetError, match=r"differs in fingerprint: 'f', now 'other'"):
        write(path, other)
    assert contents(path) == before
    write(path, other, replace=True)
    assert Functaset.open(path).header.fingerprint == "other"


def test_the_plan_is_pickled_without_its_images(tmp_path):
    import pickle

    plan = real_plan()
    rows = plan.encode(3, 9)
    pickled = pickle.dumps(plan.encode)
    assert len(pickled) < 50 * 32 * 32  # less than the images alone
    np.testing.assert_array_equal(pickle.loads(pickled)(3, 9).latents, rows.latents)
