"""This project's own commands of `kedro`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import CONTEXT_SETTINGS, _split_params
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata

from spatial_functa_pipeline.claims_command import claims
from spatial_functa_pipeline.run_command import ProjectCommand, run
from spatial_functa_pipeline.search_command import search
from spatial_functa_pipeline.study_command import study

if TYPE_CHECKING:
    from rich.table import Table

    from spatial_functa_pipeline.datasets.variants import Variant


class ProjectCommands(click.Group):
    """Commands of the project, which are of its class."""

    command_class = ProjectCommand


@click.group(cls=ProjectCommands, context_settings=CONTEXT_SETTINGS, name="spatial_functa_pipeline")
def cli() -> None:
    """Commands of the spatial functa pipeline."""


cli.add_command(run)
cli.add_command(study)
cli.add_command(search)
cli.add_command(claims)


@cli.command("check-functasets")
@click.argument("names", nargs=-1)
@click.option("--env", "-e", default=None, help="Kedro configuration environment name.")
@click.option("--params", default="", callback=_split_params, help="As for `kedro run`.")
def check_functasets(names: tuple[str, ...], env: str | None, params: dict[str, object]) -> None:
    """Read whole functasets of the catalog and say what is wrong with them: counts, checksums, fingerprints, NaNs.

    NAMES are catalog entries; without any, all functasets that are there are checked. Exits with 1 if something is wrong.
    """
    from rich.console import Console
    from rich.table import Table

    from spatial_functa_pipeline.datasets.functaset import FunctasetDataset, mend_command, what_to_do
    from spatial_functa_pipeline.functasets.checking import Findings, check
    from spatial_functa_pipeline.functasets.errors import MissingFunctasetError

    session = KedroSession.create(Path.cwd(), env=env, runtime_params=params)
    with session:
        catalog = session.load_context().catalog
        known = {name: entry for name in catalog if isinstance(entry := catalog.get(name), FunctasetDataset)}
        if unknown := sorted(set(names) - set(known)):
            raise click.ClickException(f"no functaset is named {', '.join(unknown)}: choose among {', '.join(known)}")
        reports: dict[str, Findings] = {}
        for name in names or known:
            try:
                reports[name] = check(known[name]._filepath)
            except MissingFunctasetError as error:
                if names:
                    reports[name] = Findings(problems=[f"{error}; {what_to_do(error)}"])
                continue
            except (
                Exception
            ) as error:  # whatever damaged metadata lead to: the other functasets are checked all the same
                reports[name] = Findings(problems=[f"cannot be read ({type(error).__name__}: {error})"])
                continue
            reports[name].problems += [f"stale: {reason}" for reason in known[name].staleness()]
    if not reports:
        raise click.ClickException("there are no functasets yet; build them: kedro run --pipeline=functaset_build")
    table = Table("functaset", "rows", "shards", "MiB", "mean PSNR", "")
    for name, report in reports.items():
        psnr = "" if report.mean_psnr is None else f"{report.mean_psnr:.2f} dB"
        verdict = f"[red]{len(report.problems)} problems[/red]" if report.problems else "[green]sound[/green]"
        table.add_row(name, f"{report.rows:,}", str(report.shards), f"{report.bytes / 2**20:.1f}", psnr, verdict)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    for name, report in reports.items():
        mend = (
            [f"to build what is missing or damaged: {mend_command(report.split, report.quantised)}"]
            if report.mendable
            else []
        )
        for line in (*report.problems, *mend):
            console.print(f"{name}: {line}", soft_wrap=True, markup=False)
    if any(report.problems for report in reports.values()):
        raise SystemExit(1)


@cli.command("variants")
@click.option("--remove", "pattern", metavar="PATTERN", help="Remove what fits, as in seed=1 or 'cifar10/8x8x16-*'.")
@click.option("--yes", is_flag=True, help="Do not ask before removing.")
@click.pass_obj
def variants(metadata: ProjectMetadata, pattern: str | None, yes: bool) -> None:
    """What runs have left on disk, a row for each variant: outputs, size, and what was measured.

    A variant is named by data set, latent shape and interpolation, and by the parameters that were changed for it. PATTERN
    is one for that name, or a changed parameter with its value. --remove keeps what other variants were made from, or may
    need since something of theirs is not finished. Functasets in object stores are not seen: what only they were made from
    is removed.
    """
    from rich.console import Console

    from spatial_functa_pipeline.datasets.variants import find_variants, matching, removable, remove

    found = find_variants(metadata.project_path / "data")
    chosen = found if pattern is None else matching(found, pattern)
    if not chosen:
        fitting = f" that fits {pattern!r}" if pattern else ""
        raise click.ClickException(f"there is no variant{fitting}; `kedro run` makes one, `kedro variants` lists all")
    console = Console(width=None if Console().is_terminal else 240)
    console.print(_table(chosen))
    if pattern is None:
        return
    unused, used = removable(chosen, found)
    for outputs, word in (
        (used, "kept, since other variants were made from it or may need it"),
        (unused, "to be removed"),
    ):
        for output in outputs:
            path = output.path.relative_to(metadata.project_path)
            console.print(f"{word}: {path}", soft_wrap=True, markup=False)
    if not unused:
        console.print("Nothing to remove.")
        return
    size = sum(output.bytes for output in unused) / 2**20
    if not yes:
        click.confirm(f"Remove {len(unused)} outputs, {size:.1f} MiB?", abort=True)
    remove(unused)
    console.print(f"Removed {len(unused)} outputs, {size:.1f} MiB.")


def _table(variants: list[Variant]) -> Table:
    from rich.table import Column, Table

    names = ("data set", "variant", "outputs")
    numbers = ("MiB", "PSNR", "top-1", "Fréchet distance", "age")
    table = Table(*(Column(name, overflow="fold") for name in names), *(Column(n, justify="right") for n in numbers))
    for variant in variants:
        distance = variant.frechet_distance
        table.add_row(
            variant.dataset,
            variant.name,
            variant.summary,
            f"{variant.bytes / 2**20:.1f}",
            _number(variant.metrics.get("psnr"), ".2f", " dB"),
            _number(variant.metrics.get("top1_accuracy"), ".3f"),
            "" if distance is None else f"{distance[1]:.3g} ({distance[0].removeprefix('frechet_distance_')})",
            _age(time.time() - variant.changed),
        )
    return table


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _age(seconds: float) -> str:
    """Roughly, as in `3 h`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
