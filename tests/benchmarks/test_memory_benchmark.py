"""The benchmark of memory: it sees what a step holds, stops what goes too far, and finds the largest batch."""

import json

import memory
import memory_table as benchmark
import pytest
from cases import Case
from memory import Step, Stopped

TINY = Case(1, 4, "nearest", 8, 3, 2, resolution=4)
linux = pytest.mark.skipif(not memory.can_measure(), reason="peak memory is measured on Linux")


@linux
@pytest.mark.slow
def test_the_step_of_the_usual_formulation_holds_all_activations():
    """Known in advance: at least the sines and cosines of three inner steps and the decoding, four bytes each."""
    case = Case(1, 4, "nearest", 64, 4, 32, resolution=32)
    activations = 4 * 2 * (case.inner_steps + 1) * case.batch * case.resolution**2 * case.width * (case.depth - 1)
    step = memory.peak_memory("torch", case, "float32")
    assert activations < step.peak < 5 * activations
    assert step.seconds > 0


READY = """
import json, os, sys, time
resident = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(1024 * int(resident.split()[1]), flush=True)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Instead of a contestant's process, one that says that it is ready, and then does this."""

    def make(script):
        file = tmp_path / "stand_in.py"
        file.write_text(READY + script)
        monkeypatch.setattr(memory, "__file__", str(file))

    return make


def measure_the_stand_in(limit=None):
    return memory.peak_memory("ours", TINY, "float32", limit)


@linux
def test_a_step_beyond_its_limit_is_stopped_at_once(stand_in):
    stand_in("held = bytearray(b'1') * 10**8\ntime.sleep(600)")
    assert measure_the_stand_in(limit=10**7) == Stopped(10**7)


@linux
@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("print(json.dumps({'peak': 5, 'seconds': 2.0}))", Step(5, 2.0)),
        ("print(json.dumps({'peak': 10**8, 'seconds': 2.0}))", Stopped(10**7)),  # beyond it for a moment only
        (f"sys.exit({memory._OUT_OF_MEMORY})", Stopped(10**7)),
    ],
)
def test_what_a_process_says_is_the_outcome(stand_in, script, found):
    stand_in(script)
    assert measure_the_stand_in(limit=10**7) == found


@linux
@pytest.mark.parametrize(("script", "status"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", -9)])
def test_a_process_that_fails_is_an_error_and_no_measurement(stand_in, script, status):
    stand_in(script)
    with pytest.raises(RuntimeError, match=f"the process of ours ended with {status}"):
        measure_the_stand_in()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_libraries_say_when_memory_runs_out(error, found):
    assert memory._is_out_of_memory(error) is found


class Machine:
    """Steps of `base + batch · each` bytes and a second an image, stopped beyond `limit`; knows what it was asked."""

    def __init__(self, base, each, limit):
        self.base, self.each, self.limit, self.asked = base, each, limit, []

    def __call__(self, batch, limit=None):
        self.asked.append(batch)
        peak = self.base + batch * self.each
        return Step(peak, float(batch)) if peak <= (limit or self.limit) else Stopped(limit or self.limit)

    def outcomes(self):
        known = {batch: self(batch, 10**6) for batch in benchmark.BATCHES}
        self.asked.clear()
        return known


@pytest.mark.parametrize(
    ("base", "each", "largest"), [(10, 30, 33), (500, 3, 166), (0, 400, 2), (999, 1, 1), (7, 994, 0)]
)
def test_the_largest_batch_within_a_budget_is_found(base, each, largest):
    machine = Machine(base, each, limit=1000)
    outcomes = machine.outcomes()
    assert benchmark.find_largest(machine, outcomes, 1000, seconds=1e9)
    found = benchmark.largest_within(outcomes, 1000)
    assert largest - largest // 50 <= found <= largest
    assert len(machine.asked) <= 3  # memory that grows evenly is predicted


def test_memory_that_grows_by_jumps_is_searched_by_bisection():
    asked = []

    def measure(batch):
        asked.append(batch)
        return Step(900, 1.0) if batch < 150 else Stopped(1000)

    outcomes = {1: Step(100, 1.0), 8: Step(110, 1.0)}
    assert benchmark.find_largest(measure, outcomes, 1000, seconds=1e9)
    assert 146 <= benchmark.largest_within(outcomes, 1000) < 150
    assert len(asked) < 15


def test_no_batch_is_tried_that_would_take_too_long():
    machine = Machine(500, 1, limit=1000)
    outcomes = machine.outcomes()
    assert not benchmark.find_largest(machine, outcomes, 1000, seconds=60)
    assert machine.asked == [60]
    assert benchmark.largest_within(outcomes, 1000) == 60


@pytest.fixture
def machine(monkeypatch):
    """`peak_memory` without processes: ours takes 40 MB and 1 MB an image, JAX 2 GB an image."""
    sizes = {"ours": Machine(40 * 10**6, 10**6, 0), "jax": Machine(0, 2 * 10**9 + 5, 0)}
    monkeypatch.setattr(benchmark, "peak_memory", lambda name, case, precision, limit: sizes[name](case.batch, limit))
    monkeypatch.setattr(benchmark, "can_measure", lambda: True)
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: name)


def test_the_command_reports_what_was_measured_and_what_was_stopped(machine, tmp_path, capsys):
    path = tmp_path / "memory.json"
    arguments = ["--configurations", "functa", "--contestants", "ours", "jax", "--limit", "8", "--seconds", "100"]
    assert benchmark.main([*arguments, "--json", str(path)]) == 0
    ours, jax = json.loads(path.read_text())
    assert (ours["megabytes_at_1"], ours["megabytes_at_8"], ours["limit_at_8"]) == (41, 48, None)
    assert (ours["largest_batch"], ours["megabytes_at_largest"], ours["larger_is_beyond"]) == (100, 140, False)
    assert (jax["megabytes_at_8"], jax["limit_at_8"]) == (None, 8 * 2**30 / 1e6)
    assert (jax["largest_batch"], jax["larger_is_beyond"]) == (2, True)
    printed = capsys.readouterr()
    assert "> 8,590" in printed.out
    assert "over 100 (140 MB)" in printed.out
    assert "1,583 MB for functa" in printed.out
    assert "functa, jax, batch 8: stopped" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pip install -e '.[bench]'"),
        (["--contestants", "ours", "--limit", "2"], "--limit 2 must be at least --budget 4"),
        (["--contestants", "ours", "--json", "/nowhere/at/all.json"], "there is no folder"),
        (["--contestants", "nobody"], "invalid choice"),
    ],
)
def test_wrong_command_lines_say_what_to_do(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
