"""The benchmark of functasets: its readers see the same rows, and it notices where they do not."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import builds
import functaset as benchmark
import numpy as np
import pytest
import stores
from stores import StoreCase

from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.store import Functaset

TINY = (
    StoreCase(300, 2, 16, batch=16, read_bytes=2**18, zarr_rows=20),
    StoreCase(1000, 2, 16, batch=16, read_bytes=2**18, zarr_rows=20),
    StoreCase(50, 4, 16, batch=8, read_bytes=2**18, zarr_rows=20),
)
GOALS = [
    *("loader_vs_memmap", "streamed_vs_memmap", "loader_vs_memmap_from_disk", "loader_vs_zarr_rows"),
    *("row_time_growth", "memory_growth", "build_overhead", "two_workers_speedup"),
]


@pytest.fixture
def small(monkeypatch):
    """The whole command, on tiny stores in this process and without builds."""
    monkeypatch.setattr(stores, "_CHUNK_BYTES", 2**12)
    monkeypatch.setattr(stores, "_SHARD_BYTES", 2**14)
    monkeypatch.setattr(stores, "MEMORY_LIMIT", 2**17)  # of the three, the second is larger
    monkeypatch.setattr(benchmark, "CASES", TINY)

    def measure(measurement, case, folder):
        return stores.MEASUREMENTS[measurement](case, folder) | {"peak_memory": 10**6 + case.rows}

    monkeypatch.setattr(benchmark, "measure_apart", measure)
    monkeypatch.setattr(benchmark, "build_overhead", lambda images, folder: {"build_overhead": 0.02})
    monkeypatch.setattr(benchmark, "two_workers_speedup", lambda images, folder: {"two_workers_speedup": 1.8})
    monkeypatch.setattr(benchmark.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)


def test_the_cases_are_those_of_the_goals():
    assert [case.name for case in benchmark.CASES] == [
        *("10000x8x8x16", "100000x8x8x16", "1000000x8x8x16", "1000x32x32x64", "10000x32x32x64")
    ]
    assert benchmark.growing(benchmark.CASES) == (0, 2)
    for case in benchmark.CASES:
        assert case.header.chunk_rows * case.row_bytes == 2**20
        assert case.header.shard_rows % case.header.chunk_rows == 0


def test_the_json_has_every_goal_and_the_details(small, tmp_path, capsys):
    path = tmp_path / "functaset.json"
    assert benchmark.main(["--rounds", "2", "--folder", str(tmp_path), "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert list(results) == [*GOALS, "cases"]
    assert [detail["case"] for detail in results["cases"]] == [case.name for case in TINY]
    for ratio in ("loader_vs_memmap", "streamed_vs_memmap", "loader_vs_zarr_rows"):
        assert results[ratio] == min(detail[ratio] for detail in results["cases"]) > 0
    assert results["memory_growth"] == pytest.approx(700 / (10**6 + 300))
    few, many, _ = results["cases"]
    assert results["row_time_growth"] == pytest.approx(few["streamed_rows_per_s"] / many["streamed_rows_per_s"] - 1)
    assert [detail["held_in_memory"] for detail in results["cases"]] == [True, False, True]
    assert few["loader_vs_memmap"] != few["streamed_vs_memmap"]
    assert many["loader_vs_memmap"] == many["streamed_vs_memmap"]
    printed = capsys.readouterr()
    assert "two_workers_speedup: 1.8" in printed.out
    assert TINY[2].name in printed.out
    assert "round 2" in printed.err
    assert [file.name for file in tmp_path.iterdir()] == ["functaset.json"]  # the stores are gone


def test_a_system_that_cannot_empty_its_page_cache_is_not_measured_from_disk(small, monkeypatch, tmp_path):
    monkeypatch.delattr(stores.os, "posix_fadvise")
    path = tmp_path / "functaset.json"
    assert benchmark.main(["--rounds", "1", "--folder", str(tmp_path), "--json", str(path)]) == 0
    assert json.loads(path.read_text())["loader_vs_memmap_from_disk"] is None


def test_rates_are_of_the_latents_bytes():
    assert benchmark.rate(TINY[0], {"rows": 1000, "seconds": 0.5}) == pytest.approx(1000 * 256 / 0.5 / 1e6)


def test_readers_that_see_other_rows_are_noticed(small, monkeypatch, tmp_path, capsys):
    original = stores._order
    monkeypatch.setattr(stores, "_order", lambda batches: np.roll(original(batches), 1))
    assert benchmark.main(["--rounds", "1", "--folder", str(tmp_path)]) == 1
    assert "did not see the same rows" in capsys.readouterr().err


def test_no_room_is_said_before_anything_is_written(small, monkeypatch, tmp_path, capsys):
    usage = namedtuple("usage", "free")
    needed = benchmark.needed_bytes(TINY)
    assert needed > 2 * 1000 * 256
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(needed - 1))
    assert benchmark.main(["--folder", str(tmp_path)]) == 1
    assert "choose another folder with --folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is exact on Linux alone")
def test_a_measurement_has_a_process_of_its_own(tmp_path):
    stores.write_functaset(TINY[0], tmp_path)
    result = stores.measure_apart("statistics", TINY[0], tmp_path)
    assert result["rows"] == 300
    assert result["seconds"] > 0
    assert 2**26 < result["peak_memory"] < 2**31


def test_a_build_is_timed_apart_from_its_encoding(tmp_path, monkeypatch):
    monkeypatch.setattr(builds, "SHARDS", 2)
    found = builds.build_overhead(8, tmp_path)
    encoding = sum(end - begin for begin, end in builds._times(tmp_path / "overhead.log"))
    assert found["build_overhead"] == pytest.approx(found["seconds"] / encoding - 1)
    assert found["build_overhead"] > 0
    assert len(builds._times(tmp_path / "overhead.log")) == 2
    assert len(Functaset.open(tmp_path / "overhead.zarr")) == 8


def test_the_speedup_is_between_first_and_last_encoding(tmp_path, monkeypatch):
    asked = []

    def write(path, plan):
        asked.append(plan.scheduling)
        spans = {1: [(100, 108), (108, 116)], 2: [(200, 208), (201, 210)]}[plan.scheduling.workers]
        plan.encode.log.write_text("".join(f"{begin} {end}\n" for begin, end in spans))

    monkeypatch.setattr(builds, "write", write)
    assert builds.two_workers_speedup(8, tmp_path)["two_workers_speedup"] == pytest.approx(1.6)
    assert asked == [Scheduling("processes", 1), Scheduling("processes", 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--folder", "/nowhere/at/all"], "there is no folder"),
        (["--json", "/nowhere/at/all.json"], "there is no folder"),
    ],
)
def test_wrong_command_lines_say_what_to_do(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_second_worker_is_not_measured_on_one_core(small, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark.os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert benchmark.measure_builds(16, tmp_path) == {"build_overhead": 0.02, "two_workers_speedup": None}
