"""How fast the field is: outer step and encoding, against the usual formulation in JAX and in PyTorch.

    python benchmarks/field.py [--json PATH] [--configurations NAME …] [--precisions float32 bf16] [--rounds N]
                               [--without-jax]

All contestants get the same weights and images, and must first agree on latents and outer gradient. Then they take
turns, for a number of rounds, so that a slow minute of the machine meets all alike; the median over the rounds counts, and
beside a ratio stand its lowest and highest in one round.
The peers always compute in float32. Progress goes to stderr, the table to stdout.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from cases import CASES, Case, Precision
from ceiling import Ceiling, outer_products
from contestants import Call, Contestant, jax_contestant, our_contestant, torch_contestant
from memory import Step, can_measure, peak_memory
from ours import Ours, use_all_cores
from rich.console import Console
from rich.table import Table
from torch import Tensor

TOLERANCES: dict[Precision, tuple[float, float]] = {"float32": (1e-4, 1e-3), "bf16": (0.03, 0.05)}
"""Largest relative error of the latents, and of each parameter's outer gradient (norms), against PyTorch in float32.

bf16 rounds each factor to 3 digits, which came to 0.9 % in the latents and 0.5 % in the gradients at most. The bounds tell
rounding from a wrong formula at these untrained weights; what bf16 costs a trained field is measured in PSNR.
"""

Result = dict[str, Any]


class DisagreementError(RuntimeError):
    """Two contestants do not compute the same: their times cannot be compared."""


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖; NaN if either is not finite."""
    return ((found - wanted).norm() / wanted.norm()).item()


def check_agreement(reference: Contestant, others: Mapping[str, tuple[Contestant, Precision]], where: str) -> None:
    """Raises DisagreementError unless all compute the reference's latents and gradients within TOLERANCES."""
    latents, gradients = reference.latents(), reference.gradients()
    for name, (contestant, precision) in others.items():
        errors = {"latents": relative_error(contestant.latents(), latents)}
        errors |= {key: relative_error(value, gradients[key]) for key, value in contestant.gradients().items()}
        if set(errors) != {"latents", *gradients}:
            raise DisagreementError(f"{where}: {name} has other parameters than the reference: {sorted(errors)}")
        limits = {key: TOLERANCES[precision][key != "latents"] for key in errors}
        # "not ≤" rather than ">", so that NaN counts as wrong.
        if wrong := [f"{key}: {error:.1e}" for key, error in errors.items() if not error <= limits[key]]:
            raise DisagreementError(
                f"{where}: {name} and torch (float32) do not compute the same, so that their times cannot be "
                f"compared. Relative errors beyond {TOLERANCES[precision]} (latents, gradients): {', '.join(wrong)}"
            )
        largest = max(error for key, error in errors.items() if key != "latents")
        progress(f"  {name} agrees: latents to {errors['latents']:.1e}, gradients to {largest:.1e}")


def take_turns(calls: Mapping[str, Call], rounds: int, seconds: float = 0.4) -> Iterator[dict[str, float]]:
    """For each round, the seconds that one call of each contestant takes.

    A turn is an untimed call, which brings the contestant's data back into the caches and the threads of the one
    before to rest, and then calls for `seconds`, at least one.
    """
    for _ in range(rounds):
        taken = {}
        for name, call in calls.items():
            call()
            start, count = time.perf_counter(), 0
            while not count or time.perf_counter() - start < seconds:
                call()
                count += 1
            taken[name] = (time.perf_counter() - start) / count
        yield taken


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    """The median of each contestant."""
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def ratio_range(turns: list[dict[str, float]], peer: str, ours: str) -> tuple[float, float] | None:
    """The lowest and the highest ratio of the peer's time to ours in one round; None if it took no part."""
    if peer not in turns[0]:
        return None
    ratios = [turn[peer] / turn[ours] for turn in turns]
    return min(ratios), max(ratios)


def measure(case: Case, precisions: list[Precision], rounds: int, with_jax: bool) -> tuple[list[Result], list[Result]]:
    """The objects for one configuration, one a precision, and beside each its times in seconds, for the table."""
    progress(f"{case.name}: compiling and checking")
    torch.compiler.reset()  # where there is no kernel each field is compiled, and only a few are kept
    peers = {"torch": torch_contestant(case)} | ({"jax": jax_contestant(case)} if with_jax else {})
    ours = {precision: our_contestant(case, precision) for precision in precisions}
    others = {name: (peer, "float32") for name, peer in peers.items() if name != "torch"}
    others |= {f"ours in {precision}": (contestant, precision) for precision, contestant in ours.items()}
    check_agreement(peers["torch"], others, case.name)

    progress(f"{case.name}: measuring")
    contestants = peers | ours
    ceilings = {precision: Ceiling(case.width, precision) for precision in {"float32", *precisions}}
    encoding, outer = [], []
    for index in range(rounds):
        encoding += take_turns({name: contestant.encode for name, contestant in contestants.items()}, 1)
        outer += take_turns({name: contestant.outer for name, contestant in contestants.items()}, 1)
        for ceiling in ceilings.values():
            ceiling.measure()
        progress(f"  round {index + 1}: " + ", ".join(f"{name} {s * 1e3:.0f} ms" for name, s in outer[-1].items()))
    encode_time, outer_time = medians(encoding), medians(outer)

    results, times = [], []
    for precision in precisions:
        shortest = outer_products(case).shortest_time(ceilings[precision].best, ceilings["float32"].best)
        result: Result = {"configuration": case.name, "precision": precision}
        for peer in ("jax", "torch"):
            for key, seconds, turns in (("outer_step", outer_time, outer), ("encode", encode_time, encoding)):
                result[f"{key}_vs_{peer}"] = seconds[peer] / seconds[precision] if peer in seconds else None
                result[f"{key}_vs_{peer}_range"] = ratio_range(turns, peer, precision)
        result["ceiling_share"] = shortest / outer_time[precision]
        step = peak_memory("ours", case, precision) if can_measure() else None
        result["peak_memory_mb"] = step.megabytes if isinstance(step, Step) else None
        results.append(result)
        times.append(
            {
                name: {key: seconds.get(which) for key, seconds in (("outer", outer_time), ("encode", encode_time))}
                for name, which in (("ours", precision), ("torch", "torch"), ("jax", "jax"))
            }
        )
    return results, times


def measure_growth(case: Case, precision: Precision, rounds: int) -> Result:
    """By what share an image costs more to encode among 256 than among 8, with the batches of `functaset_build`."""
    progress(f"{case.name}: encoding 8 and 256 images")
    torch.compiler.reset()
    ours, few, many = Ours(case, precision), case.images(8), case.images(256)
    turns = take_turns({"few": lambda: ours.encode(few), "many": lambda: ours.encode(many)}, rounds)
    times = medians(list(turns))
    growth = (times["many"] / len(many)) / (times["few"] / len(few)) - 1
    return {"configuration": case.name, "precision": precision, "encode_growth_8_to_256": growth}


def progress(message: str) -> None:
    """A line on stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def table(results: list[Result], times: list[Result], with_jax: bool) -> Table:
    """What was measured, as a table: times in milliseconds, ratios (and their range) > 1 where ours is faster."""
    out = Table(title="One batch: milliseconds of ours / JAX / torch, and how many times faster ours is")
    for heading in ("configuration", "precision"):
        out.add_column(heading, no_wrap=True)
    for kind in ("outer step", "encode"):
        for heading in (f"{kind}, ms", "× JAX", "× torch"):
            out.add_column(heading, justify="right", no_wrap=True)
    for heading in ("ceiling", "peak MB"):
        out.add_column(heading, justify="right", no_wrap=True)

    def number(value: float | None, pattern: str) -> str:
        return "–" if value is None else format(value, pattern)

    def ratio(result: Result, key: str) -> str:
        if result[f"{key}_range"] is None:
            return "–"
        lowest, highest = result[f"{key}_range"]
        return f"{result[key]:.1f} ({lowest:.1f}–{highest:.1f})"

    for result, time_of in zip(results, times, strict=True):
        row = [result["configuration"], result["precision"]]
        for kind, key in (("outer", "outer_step"), ("encode", "encode")):
            milliseconds = [time_of[name][kind] for name in ("ours", "jax", "torch")]
            row.append(" / ".join(number(None if s is None else s * 1e3, ".0f") for s in milliseconds))
            row += [ratio(result, f"{key}_vs_{peer}") for peer in ("jax", "torch")]
        row += [number(result["ceiling_share"], ".0%"), number(result["peak_memory_mb"], ".0f")]
        out.add_row(*row)
    if not with_jax:
        out.caption = "JAX was left out (--without-jax)"
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    parser.add_argument("--configurations", nargs="+", choices=names, default=names, metavar="NAME", help=f"{names}")
    parser.add_argument("--precisions", nargs="+", choices=list(TOLERANCES), default=list(TOLERANCES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-jax", action="store_true", help="compare with PyTorch only")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if not options.without_jax and importlib.util.find_spec("jax") is None:
        parser.error("JAX is not installed: pip install -e '.[bench]', or leave it out with --without-jax")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    options = parse(arguments)
    with_jax = not options.without_jax
    progress(f"{use_all_cores()} cores, torch {torch.__version__}" + ("" if with_jax else ", without JAX"))
    cases = [case for case in CASES if case.name in options.configurations]
    results, times = [], []
    try:
        for case in cases:
            for found, gathered in zip(
                measure(case, options.precisions, options.rounds, with_jax), (results, times), strict=True
            ):
                gathered += found
    except DisagreementError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    growth = measure_growth(cases[0], options.precisions[0], options.rounds)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(results, times, with_jax))
    console.print(
        f"Encoding 256 images instead of 8 ({growth['configuration']}, {growth['precision']}): "
        f"{growth['encode_growth_8_to_256']:+.0%} per image"
    )
    if options.json:
        options.json.write_text(json.dumps([*results, growth], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
