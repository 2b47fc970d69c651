"""How much memory an outer step takes: ours against the usual formulation in JAX and in PyTorch.

    python benchmarks/memory_table.py [--configurations functa …] [--contestants ours …] [--seconds 600] [--json PATH]

One exact second-order outer step of functa's own field (latent 1×1×512, images 64×64×3, width 512, depth 15), and of a
smaller one (width 256, depth 6), in float32: three inner steps, decoding, and the gradient of all parameters. Each step is a
process of its own; `memory.py` says what counts. One that goes beyond `--limit` is stopped.

The largest batch within `--budget` is predicted from the steps that were measured, and tried; bisection does the rest. No
batch is tried that would take more than `--seconds`: where the largest that takes no longer is within the budget, the table
says "over", and what it took. Progress goes to stderr, the table to stdout.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from cases import Case
from contestants import Name
from memory import Step, Stopped, can_measure, peak_memory
from rich.console import Console
from rich.table import Table

CASES = {
    "functa": Case(1, 512, "nearest", 512, 15, 1, resolution=64, channels=3),
    "smaller": Case(1, 512, "nearest", 256, 6, 1, resolution=64, channels=3),
}
BATCHES = (1, 8)
PUBLISHED = {"functa": 1583, "ENF": 7347}
"""Megabytes of a step at batch 1 and images of 64×64×3, as LH-NeF prints them (arXiv 2606.08204, Tab. 5)."""
GIB = 2**30

Outcome = Step | Stopped
Measure = Callable[[int], Outcome]


def predicted(steps: dict[int, Step], budget: int) -> int:
    """The largest batch whose memory is within `budget`, on the line through the two largest batches measured."""
    *before, (batch, step) = sorted(steps.items())
    smaller, peak = (before[-1][0], before[-1][1].peak) if before else (0, 0)
    slope = max((step.peak - peak) / (batch - smaller), 1.0)  # noise may hide what an image adds
    return int(batch + (budget - step.peak) // slope)


def find_largest(measure: Measure, outcomes: dict[int, Outcome], budget: int, seconds: float) -> bool:
    """Add outcomes until the largest batch within `budget` bytes is among them; whether a larger one is known not to be.

    To one image or 2 %. That of one image is known. `measure` is asked for no batch that would take longer than `seconds`.
    """
    while True:
        fitting = largest_within(outcomes, budget)
        beyond = min((batch for batch, outcome in outcomes.items() if not is_within(outcome, budget)), default=None)
        tolerance = max(1, fitting // 50)
        if beyond is not None and beyond - fitting <= tolerance:
            return True
        steps = {batch: outcome for batch, outcome in outcomes.items() if isinstance(outcome, Step)}
        guess = max(predicted(steps, budget), fitting + tolerance)
        if beyond is not None and guess >= beyond:
            guess = (fitting + beyond) // 2
        slowest = max(steps)
        affordable = int(seconds * slowest // steps[slowest].seconds)
        if guess > affordable <= 1.5 * fitting:
            return False
        guess = min(guess, affordable)
        outcomes[guess] = measure(guess)


def is_within(outcome: Outcome, budget: int) -> bool:
    """Whether the step took `budget` bytes at most."""
    return isinstance(outcome, Step) and outcome.peak <= budget


def largest_within(outcomes: dict[int, Outcome], budget: int) -> int:
    """The largest batch that was found to be within `budget` bytes; 0 if none was."""
    return max((batch for batch, outcome in outcomes.items() if is_within(outcome, budget)), default=0)


def measure_row(name: str, contestant: Name, options: argparse.Namespace) -> dict[str, Any]:
    """The object for one configuration and contestant."""

    def measure(batch: int, limit: int) -> Outcome:
        outcome = peak_memory(contestant, replace(CASES[name], batch=batch), "float32", limit)
        said = f"{outcome.megabytes:,.0f} MB, {outcome.seconds:.0f} s" if isinstance(outcome, Step) else "stopped"
        progress(f"{name}, {contestant}, batch {batch}: {said}")
        return outcome

    limit, budget = int(options.limit * GIB), int(options.budget * GIB)
    outcomes = {batch: measure(batch, limit) for batch in BATCHES}
    row: dict[str, Any] = {"configuration": name, "contestant": contestant}
    for batch in BATCHES:
        outcome = outcomes[batch]
        row[f"megabytes_at_{batch}"] = outcome.megabytes if isinstance(outcome, Step) else None
        row[f"limit_at_{batch}"] = outcome.limit / 1e6 if isinstance(outcome, Stopped) else None
        row[f"seconds_at_{batch}"] = outcome.seconds if isinstance(outcome, Step) else None
    bounded = find_largest(lambda batch: measure(batch, budget), outcomes, budget, options.seconds)
    largest = largest_within(outcomes, budget)
    step = outcomes.get(largest)
    peak = step.megabytes if isinstance(step, Step) else None
    return row | {"largest_batch": largest, "megabytes_at_largest": peak, "larger_is_beyond": bounded}


def progress(message: str) -> None:
    """A line on stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]], budget: float) -> Table:
    """What was measured, as a table: megabytes are 10⁶ bytes."""
    out = Table(title="Peak memory of one outer step, MB")
    out.add_column("configuration", no_wrap=True)
    out.add_column("contestant", no_wrap=True)
    for batch in BATCHES:
        out.add_column(f"B = {batch}", justify="right", no_wrap=True)
    for heading in (f"share of JAX's at {BATCHES[-1]}", f"seconds at {BATCHES[-1]}", f"largest B in {budget:g} GiB"):
        out.add_column(heading, justify="right")
    jax = {row["configuration"]: row for row in rows if row["contestant"] == "jax"}
    for row in rows:
        case, most = CASES[row["configuration"]], BATCHES[-1]
        taken = [row[f"megabytes_at_{batch}"] for batch in BATCHES]
        peaks = [
            f"> {row[f'limit_at_{batch}']:,.0f}" if megabytes is None else f"{megabytes:,.0f}"
            for batch, megabytes in zip(BATCHES, taken, strict=True)
        ]
        whole = jax.get(row["configuration"], {}).get(f"megabytes_at_{most}")
        share = "–" if whole is None or taken[-1] is None else f"{taken[-1] / whole:.0%}"
        seconds = "–" if row[f"seconds_at_{most}"] is None else f"{row[f'seconds_at_{most}']:.0f}"
        largest = f"{row['largest_batch']:,}"
        if not row["larger_is_beyond"]:
            largest = f"over {largest} ({row['megabytes_at_largest']:,.0f} MB)"
        out.add_row(f"{case.name} ({row['configuration']})", row["contestant"], *peaks, share, seconds, largest)
    published = " and ".join(f"{megabytes:,} MB for {name}" for name, megabytes in PUBLISHED.items())
    out.caption = f"Published at B = 1, 64×64×3: {published} (LH-NeF, Tab. 5)"
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    contestants = list(get_args(Name))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    parser.add_argument("--configurations", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--contestants", nargs="+", choices=contestants, default=contestants)
    parser.add_argument("--limit", type=float, default=16, help="GiB beyond which a step is stopped")
    parser.add_argument("--budget", type=float, default=4, help="GiB that the largest batch is to stay within")
    parser.add_argument("--seconds", type=float, default=600, help="that one step may take when the batch is sought")
    options = parser.parse_args(arguments)
    if not options.limit >= options.budget > 0:
        parser.error(f"--limit {options.limit:g} must be at least --budget {options.budget:g}, and that positive")
    if "jax" in options.contestants and importlib.util.find_spec("jax") is None:
        parser.error("JAX is not installed: pip install -e '.[bench]', or leave it out of --contestants")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if not can_measure():
        parser.error("peak memory can be measured on Linux only")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    options = parse(arguments)
    rows = [
        measure_row(name, contestant, options) for name in options.configurations for contestant in options.contestants
    ]
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows, options.budget))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
