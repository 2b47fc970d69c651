"""How steady meta-learning is: does PSNR fall on the way, and what do the spectral penalty and the guard do about it?

    python benchmarks/stability.py [--seeds 0 1 2] [--rates 0.3333 1 3 10] [--interpolations nearest linear] [--steps N]
                                   [--recipes preset] [--processes N] [--output FOLDER] [--json PATH]

Trains the field of `conf/sample` on the embedded images with `train_field`, once for each recipe, each seed, each outer
learning rate (as a multiple of the preset's), each interpolation, and each protection: `plain`, `penalty`, `guard`, `both`.
Recipes are the preset with changes, some of which are known to fail elsewhere: `RECIPES`. A run is one
JSON file in the output folder; what is there is not run again, so that the command can be interrupted and repeated.
Writes `stability.csv` and `stability.png` beside them, and prints a summary.
"""

import argparse
import json
import logging
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from kedro.io import AbstractDataset
from rich.console import Console
from rich.table import Table
from torch import nn

from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.guard import TrainingDivergedError
from spatial_functa_pipeline.training.run import TrainingRun

ROOT = Path(__file__).parents[1]
PROTECTIONS = ("plain", "penalty", "guard", "both")
TRUE_SPECTRUM = ("true_spectral_radius", "share_beyond_2")
ALLOWED_FALL = 0.5
ALLOWED_SPREAD = 0.5

Protection = Literal["plain", "penalty", "guard", "both"]

FACTORS = ("siren", "modulation", "inner_rates", "first_step", "linear")
# A 1×1 λ and three inner steps, where each cell has a step matrix of its own; Adam; nothing between the pixels.
PLAIN = {"hidden_optimizer": "adam", "jitter": {"share": 0.0}, "training": {"steps": 3750, "learning_rate": 1.5e-3}}
TIED = {
    **PLAIN,
    "field": {"kernel_size": 1, "inner_steps": 3, "first_step": "tied", "initialisation": "random", "overlap": 0.0},
    "learning_rate_factors": {**dict.fromkeys(FACTORS, 1.0), "hidden": None},
    "training_inner_steps": None,
}
FREE = {
    **PLAIN,
    "field": {"kernel_size": 1, "inner_steps": 3, "first_step": "free", "initialisation": "random", "overlap": 0.0},
    "learning_rate_factors": {"siren": 1.0, "hidden": None, "modulation": 3.0, "inner_rates": 3.0, "first_step": 3.0},
    "training_inner_steps": 2,
}
# 15 layers at ω0 30, as functa has them, at the preset's width: a vector for the whole image.
DEEP = {"width": 64, "depth": 15, "omega0": 30.0}
# An inner gradient is the mean over 64 times as many pixels as a cell of the preset has, and so is a free first step's map.
FREE_VECTOR = {**FREE, "learning_rate_factors": {**FREE["learning_rate_factors"], "first_step": 3 / 64}}

RECIPES: dict[str, dict[str, Any]] = {
    "preset": {},
    "tied": {"meta_learning": TIED},
    "free": {"meta_learning": FREE},
    # All rates × 3, the SIREN's too.
    "tripled-tied": {
        "meta_learning": {**TIED, "learning_rate_factors": {**dict.fromkeys(FACTORS, 3.0), "hidden": None}}
    },
    "tripled-free": {
        "meta_learning": {**FREE, "learning_rate_factors": {**dict.fromkeys(FACTORS, 3.0), "hidden": None}}
    },
    "deep-vector-tied": {"latent_shape": "1x1x512", "meta_learning": {**TIED, "field": {**TIED["field"], **DEEP}}},
    "deep-vector-free": {
        "latent_shape": "1x1x512",
        "meta_learning": {**FREE_VECTOR, "field": {**FREE["field"], **DEEP}},
    },
    "deep-vector-data": {
        "latent_shape": "1x1x512",
        "meta_learning": {**FREE_VECTOR, "field": {**FREE["field"], **DEEP, "initialisation": "data"}},
    },
}
"""Parameters of a run, as `--params` has them."""


@dataclass(frozen=True)
class Run:
    """One training. `rate` is a multiple of the preset's learning rate."""

    recipe: str
    interpolation: Literal["nearest", "linear"]
    rate: float
    protection: Protection
    seed: int

    @property
    def name(self) -> str:
        """As in `preset-nearest-rate3-both-seed0`."""
        return f"{self.recipe}-{self.interpolation}-rate{self.rate:.3g}-{self.protection}-seed{self.seed}"


@dataclass(frozen=True)
class Settings:
    """What all runs share. `steps` None is the preset's number."""

    steps: int | None
    validate_every: int
    threads: int
    output: Path


# The preset, as `kedro run` would read it


def load_configuration(interpolation: str, recipe: str = "preset", **more: Any) -> CONFIG_LOADER_CLASS:
    """The configuration of the default environment. To be used before the next one is made: resolvers are global.

    `more`: parameters, as `--params` has them.
    """
    changes = {"interpolation": interpolation, **RECIPES[recipe], **more}
    return CONFIG_LOADER_CLASS(str(ROOT / "conf"), env="sample", runtime_params=changes, **CONFIG_LOADER_ARGS)


@cache
def preset_parameters(interpolation: str, recipe: str = "preset") -> PipelineParameters:
    """The parameters of the default environment."""
    return PipelineParameters.model_validate(load_configuration(interpolation, recipe)["parameters"])


def load_images(interpolation: str, name: str) -> Images:
    """An image data set of the catalog."""
    entry = load_configuration(interpolation)["catalog"][name]
    return AbstractDataset.from_config(name, {**entry, "filepath": str(ROOT / entry["filepath"])}).load()


def configure(run: Run, settings: Settings) -> tuple[PipelineParameters, MetaLearningConfig]:
    """The preset's parameters, and its meta-learning block with the changes that make up the run.

    Raises ValueError if the preset has no penalty or no guard that could be switched.
    """
    parameters = preset_parameters(run.interpolation, run.recipe)
    preset = parameters.meta_learning
    if not preset.spectral_penalty.weight or not preset.training.guard:
        raise ValueError(
            "conf/sample must have a meta_learning.spectral_penalty.weight and a meta_learning.training.guard: the benchmark "
            "compares the preset with and without them"
        )
    training = preset.training
    changes = {
        "steps": settings.steps or training.steps,
        "learning_rate": run.rate * training.learning_rate,
        "validate_every": settings.validate_every,
        "guard": training.guard.model_dump() if run.protection in ("guard", "both") else None,
    }
    # A short trial keeps the preset's share of warm-up steps.
    changes["warmup_steps"] = round(training.warmup_steps * changes["steps"] / training.steps)
    block = preset.model_dump()
    block["training"] |= changes
    if run.protection in ("plain", "guard"):
        block["spectral_penalty"]["weight"] = 0.0
    return parameters, MetaLearningConfig.model_validate(block)


# One run


def train(run: Run, settings: Settings, images: tuple[Images, Images]) -> dict[str, Any]:
    """Train; returns what the run's file holds: see `summarise`, and the curve as [step, validation PSNR or None]."""
    parameters, config = configure(run, settings)
    points: list[tuple[int, float]] = []
    spectra: list[dict[str, float]] = []
    rollbacks: list[int] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        if "validation_psnr" in metrics:
            points.append((step, metrics["validation_psnr"]))
            spectra.append(metrics)
        elif metrics.keys() == {"rollbacks"}:
            rollbacks.append(step)

    start, field, outcome = time.monotonic(), None, "finished"
    with tempfile.TemporaryDirectory() as folder:
        try:
            field, _ = train_field(
                *images,
                config,
                run=TrainingRun(
                    run.seed,
                    parameters.runtime.model_copy(update={"progress": False, "device": "cpu"}),
                    Checkpoint(Path(folder) / "field.ckpt"),
                    report,
                ),
            )
        except TrainingDivergedError as error:
            outcome = str(error)
    return {
        **asdict(run),
        "learning_rate": config.training.learning_rate,
        **summarise(points, rollbacks, field),
        "largest_spectral_radius": max(filter(math.isfinite, (at["spectral_radius"] for at in spectra)), default=None),
        **{name: last_finite(at[name] for at in spectra if name in at) for name in TRUE_SPECTRUM},
        "outcome": outcome,
        "seconds": time.monotonic() - start,
        "rolled_back_at": rollbacks,
        "curve": [[step, psnr if math.isfinite(psnr) else None] for step, psnr in points],
    }


def summarise(points: Sequence[tuple[int, float]], rollbacks: Sequence[int], field: nn.Module | None) -> dict[str, Any]:
    """Final and best validation PSNR, largest fall (dB), number of roll-backs, and whether the run stayed finite.

    The largest fall is the PSNR's largest distance below the highest one before it, over all that was validated and
    reported, steps later undone included. The validation that made the guard roll back is not among them: it counts
    as a roll-back. A run that was lost (it gave up, or a weight or PSNR is not a number) is not finite, and has neither
    final PSNR nor largest fall: what it reached before says nothing.
    """
    values = [psnr for _, psnr in points]
    finite = (
        field is not None
        and bool(values)
        and all(map(math.isfinite, values))
        and all(bool(parameter.isfinite().all()) for parameter in field.parameters())
    )
    best, fall = -math.inf, 0.0
    for psnr in filter(math.isfinite, values):
        best = max(best, psnr)
        fall = max(fall, best - psnr)
    return {
        "final_psnr": values[-1] if finite else None,
        "best_psnr": best if math.isfinite(best) else None,
        "largest_fall": fall if finite else None,
        "rollbacks": len(rollbacks),
        "finite": finite,
    }


def last_finite(values: Iterable[float]) -> float | None:
    """The last of the values that are finite, or None."""
    return next(filter(math.isfinite, reversed(list(values))), None)


def result_path(run: Run, settings: Settings) -> Path:
    """Where the run's result is kept."""
    return settings.output / f"{run.name}.json"


def identity(run: Run, settings: Settings) -> dict[str, Any]:
    """What a kept result must agree on to stand for this run."""
    return configure(run, settings)[1].model_dump(mode="json")


def finished(run: Run, settings: Settings) -> dict[str, Any] | None:
    """The kept result, or None. Raises ValueError if it was made with other parameters."""
    path = result_path(run, settings)
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    if kept["parameters"] != identity(run, settings):
        raise ValueError(
            f"{path} was made with other parameters or steps: remove it, or choose another folder with --output"
        )
    return kept["result"]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the trainings' own warnings: what they warn of is counted here."""
    package = logging.getLogger("spatial_functa_pipeline")
    before = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(before)


def train_all(runs: Sequence[Run], settings: Settings) -> None:
    """In one process: train the runs one after the other, each kept as soon as it is done."""
    torch.set_num_threads(settings.threads)
    images: dict[str, tuple[Images, Images]] = {}
    for run in runs:
        if run.interpolation not in images:
            names = ("train_images", "validation_images")
            images[run.interpolation] = tuple(load_images(run.interpolation, name) for name in names)
        with quiet():
            result = train(run, settings, images[run.interpolation])
        path = result_path(run, settings)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"parameters": identity(run, settings), "result": result}, indent=1) + "\n")
        temporary.replace(path)
        quality = f"{result['final_psnr']:.2f} dB, fell by {result['largest_fall']:.2f}" if result["finite"] else "lost"
        progress(f"{run.name}: {quality}, {result['rollbacks']} roll-backs, {result['seconds']:.0f} s")


def spread_out(runs: Sequence[Run], settings: Settings, processes: int) -> None:
    """`train_all` in several processes."""
    if processes == 1:
        train_all(runs, settings)
        return
    shares = [list(runs[rank::processes]) for rank in range(min(processes, len(runs)))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(shares), mp_context=context) as pool:
        futures = [pool.submit(train_all, share, settings) for share in shares]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in (*done, *waiting):
            future.result()


# What is shown


def aggregate(results: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row for each recipe, interpolation, rate and protection, over its seeds."""
    frame = pd.DataFrame(results)
    order = pd.CategoricalDtype(PROTECTIONS, ordered=True)
    frame["protection"] = frame["protection"].astype(order)
    frame = frame.astype(dict.fromkeys(("final_psnr", "largest_fall", *TRUE_SPECTRUM), float))
    frame["recipe"] = frame["recipe"].astype(pd.CategoricalDtype(list(RECIPES), ordered=True))
    groups = frame.groupby(["recipe", "interpolation", "rate", "protection"], observed=True, sort=True)
    return groups.agg(
        seeds=("seed", "count"),
        final_psnr=("final_psnr", "mean"),
        spread=("final_psnr", lambda psnr: psnr.max() - psnr.min()),
        largest_fall=("largest_fall", "max"),
        rollbacks=("rollbacks", "sum"),
        not_finite=("finite", lambda finite: int((~finite).sum())),
        true_spectral_radius=("true_spectral_radius", "max"),
        share_beyond_2=("share_beyond_2", "mean"),
    ).reset_index()


def verdicts(summary: pd.DataFrame) -> list[str]:
    """For the preset's protected runs (`both`): is what the project promises kept? A line for each promise measured."""
    both = summary[(summary["recipe"] == "preset") & (summary["protection"] == "both")]
    lines = []
    if len(both):
        lost = int(both["not_finite"].sum())
        lines.append(f"{'kept' if lost == 0 else 'BROKEN'}: no run ends non-finite or gives up ({lost} did)")
    for row in both[both["rate"] == 1].itertuples():
        for what, value, limit in (
            ("no fall", row.largest_fall, ALLOWED_FALL),
            ("no spread of the seeds' PSNR", row.spread, ALLOWED_SPREAD),
        ):
            # A PSNR that is missing makes the spread NaN, which is not within the limit.
            kept = "kept" if value <= limit and row.not_finite == 0 else "BROKEN"
            lines.append(f"{kept}: {row.interpolation}, preset's rate: {what} above {limit} dB ({value:.2f} dB)")
    return lines


def table(summary: pd.DataFrame) -> Table:
    """The summary for the terminal."""
    out = Table(
        title="Final validation PSNR (mean of the seeds), its spread, the largest fall: dB; true λ_max, share > 2"
    )
    names = ("recipe", "interpolation", "protection")
    headings = ("recipe", "interpolation", "rate", "protection", "seeds", "PSNR", "spread", "fall", "roll-backs")
    for heading in (*headings, "not finite", "true λ_max", "beyond 2"):
        out.add_column(heading, justify="left" if heading in names else "right")
    for row in summary.itertuples(index=False):
        numbers = (number(x) for x in (row.final_psnr, row.spread, row.largest_fall))
        counts = map(str, (row.rollbacks, row.not_finite))
        spectrum = number(row.true_spectral_radius), number(row.share_beyond_2, ".1%")
        run = (row.recipe, row.interpolation, f"× {row.rate:.3g}", row.protection, str(row.seeds))
        out.add_row(*run, *numbers, *counts, *spectrum)
    return out


def number(value: float, how: str = ".2f") -> str:
    """As text; a dash for what is not a number."""
    return "–" if math.isnan(value) else f"{value:{how}}"


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """PSNR curves as small multiples: rows are recipes and interpolations, columns rates; a cross is a roll-back."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((result["recipe"], result["interpolation"]) for result in results))
    rates = sorted({result["rate"] for result in results})
    figure = Figure(figsize=(1 + 3 * len(rates), 1 + 2.5 * len(kinds)), layout="constrained")
    panels = figure.subplots(len(kinds), len(rates), sharex=True, sharey=True, squeeze=False)
    colours = dict(zip(PROTECTIONS, ("tab:grey", "tab:orange", "tab:blue", "tab:green"), strict=True))
    for result in sorted(results, key=lambda result: PROTECTIONS.index(result["protection"])):
        panel = panels[kinds.index((result["recipe"], result["interpolation"]))][rates.index(result["rate"])]
        colour = colours[result["protection"]]
        psnr = [math.nan if value is None else value for _, value in result["curve"]]
        panel.plot([step for step, _ in result["curve"]], psnr, color=colour, linewidth=1, alpha=0.8)
        level = next((value for value in reversed(psnr) if math.isfinite(value)), 0.0)
        panel.plot(result["rolled_back_at"], [level] * len(result["rolled_back_at"]), "x", color=colour, markersize=5)
    for row, kind in zip(panels, kinds, strict=True):
        row[0].set_ylabel(f"{', '.join(kind)}\nvalidation PSNR, dB")
    for column, rate in enumerate(rates):
        panels[0][column].set_title(f"{rate:.3g} × the preset's rate")
        panels[-1][column].set_xlabel("step")
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    present = {result["protection"] for result in results}
    for name in filter(present.__contains__, PROTECTIONS):
        panels[0][0].plot([], [], color=colours[name], label=name)
    panels[0][0].legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=130)


def progress(message: str) -> None:
    """A line on stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds, cores = ("nearest", "linear"), os.cpu_count() or 1
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=["preset"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--rates", nargs="+", type=lambda text: float(Fraction(text)), default=[1 / 3, 1.0, 3.0, 10.0], help="as in 1/3"
    )
    parser.add_argument("--interpolations", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--protections", nargs="+", choices=PROTECTIONS, default=list(PROTECTIONS))
    parser.add_argument("--steps", type=int, help="outer steps of each run (default: the preset's)")
    parser.add_argument("--validate-every", type=int, default=50, help="steps between the points of a curve")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; they share the cores")
    parser.add_argument("--output", type=Path, default=ROOT / "data/08_reporting/stability_benchmark", metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write one object for each run there")
    options = parser.parse_args(arguments)
    for name in ("steps", "validate_every", "processes"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if min(options.rates) <= 0:
        parser.error(f"--rates must be positive, got {min(options.rates)}")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    options.threads = max(1, cores // options.processes)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, print and write; returns the exit status."""
    options = parse(arguments)
    settings = Settings(options.steps, options.validate_every, options.threads, options.output)
    runs = [
        Run(recipe, interpolation, rate, protection, seed)
        for recipe in options.recipes
        for interpolation in options.interpolations
        for protection in options.protections
        for rate in options.rates
        for seed in options.seeds
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        missing = [run for run in runs if finished(run, settings) is None]
        progress(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
        spread_out(missing, settings, options.processes)
        results = [finished(run, settings) for run in runs]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the runs that are missing", file=sys.stderr)
        return 130
    scalars = [
        {key: value for key, value in result.items() if key not in ("curve", "rolled_back_at")} for result in results
    ]
    pd.DataFrame(scalars).to_csv(options.output / "stability.csv", index=False)
    draw(results, options.output / "stability.png")
    summary = aggregate(results)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(summary))
    for line in verdicts(summary):
        console.print(line)
    console.print(f"Runs, table and figure: {options.output}")
    if options.json:
        options.json.write_text(json.dumps(scalars, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
