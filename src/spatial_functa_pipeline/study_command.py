"""`kedro study`: run what is missing of a comparison, then its table and figure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import yaml
from kedro.framework.cli.utils import _split_params
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from kedro.io import DatasetError

from spatial_functa_pipeline.run_command import ProjectCommand
from spatial_functa_pipeline.studies.schedule import usable_cores

if TYPE_CHECKING:  # what they import takes seconds, which every command would wait for
    import pandas as pd
    from rich.console import Console

    from spatial_functa_pipeline.studies.runs import MeasuredRun
    from spatial_functa_pipeline.studies.schedule import State
    from spatial_functa_pipeline.study_plan import PlannedRun, StudyPlan
    from spatial_functa_pipeline.tracking import StudyRecord


def _within_the_cores(context: click.Context, parameter: click.Parameter, jobs: int) -> int:
    if jobs > usable_cores():
        raise click.BadParameter(f"{jobs} runs at once need as many cores, but there are {usable_cores()}")
    return jobs


@click.command("study", cls=ProjectCommand)
@click.argument("name", required=False)
@click.option("--env", "-e", default=None, help="Kedro configuration environment name.")
@click.option("--params", default="", callback=_split_params, help="As for `kedro run`; for all runs of the study.")
@click.option("--dry-run", is_flag=True, help="Say what would run, what is there, and about how long it takes.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, callback=_within_the_cores, help="Runs at once; they share the cores."
)
@click.pass_obj
def study(
    metadata: ProjectMetadata, name: str | None, env: str | None, params: dict[str, Any], dry_run: bool, jobs: int
) -> None:
    """Compare variants: run what is missing of a study, then write its table and its figure.

    NAME is a file in conf/<environment>/studies; without it, all are listed. What variants have in common is made once. Given
    again, the command goes on where it was ended.
    """
    from rich.console import Console

    from spatial_functa_pipeline.study_plan import plan_study

    console = Console(width=None if Console().is_terminal else 160)
    if name is None:
        _list_studies(console, metadata.project_path, env)
        return
    plan = plan_study(name, env, params, metadata.project_path)
    if dry_run:
        _say_what_would_run(console, plan)
        return
    from spatial_functa_pipeline.hooks.one_writer import locked

    with sigterm_as_exit(), locked(plan.project, f"study-{name}-{plan.digest}"):
        _make(console, plan, params, jobs)


def _list_studies(console: Console, project: Path, env: str | None) -> None:
    from rich.table import Table

    from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS
    from spatial_functa_pipeline.study_plan import read_study, studies_of

    env = env or str(CONFIG_LOADER_ARGS["default_run_env"])
    files = studies_of(project / "conf", env)
    if not files:
        raise click.ClickException(f"there is no study in conf/{env}/studies; docs/studies.md says how to write one")
    table = Table("study", "title", "variants", "seeds")
    for name, file in files.items():
        found = read_study(file)
        table.add_row(name, found.title, str(len(found.all_variants)), str(len(found.seeds)))
    console.print(table)


def _say_what_would_run(console: Console, plan: StudyPlan) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in ("run", "nodes that would run", "about")))
    total, unknown, cached = 0.0, 0, 0
    for planned, nodes, shared in plan.shares():
        times = [plan.estimate(planned, node) for node in nodes]
        total, unknown = total + sum(filter(None, times)), unknown + times.count(None)
        cached += not (nodes or shared)
        words = [", ".join(node.name for node in nodes)] if nodes else []
        words += [f"shared with a run above: {', '.join(shared)}"] if shared else []
        cells = ("\n".join(words), _about(times)) if words else ("all there", "–")
        table.add_row(*map(escape, (planned.run.name, *cells)))
    console.print(table)
    words = [f"{cached} of {len(plan.runs)} runs are there."]
    if total:
        words.append(f"The others take about {_about([total])} of computing, and some seconds each to start.")
    if unknown:
        words.append(f"Of {unknown} nodes no time is on record in the places of this study.")
    console.print(" ".join(words), highlight=False, soft_wrap=True)


def _about(times: Sequence[float | None]) -> str:
    """The sum of seconds in words, as far as it is known."""
    from spatial_functa_pipeline.studies.progress import duration

    known = sum(filter(None, times))
    if None not in times:
        return duration(known)
    return f"{duration(known)} + unknown" if known else "unknown"


@dataclass(eq=False)
class RunProcess:
    """A planned run as a process: see `studies.schedule.Work`."""

    planned: PlannedRun
    plan: StudyPlan
    record: StudyRecord
    last_seen: frozenset[str] | None = None

    @property
    def name(self) -> str:
        return self.planned.run.name

    @property
    def log(self) -> Path:
        return self.plan.folder / "runs" / f"{self.planned.run.file_name}.log"

    def to_make(self) -> frozenset[str]:
        """While a process is writing an output, that may be half there: it counts as it did when it was looked at before.

        If it never was, nothing counts as made.
        """
        try:
            self.last_seen = self.planned.to_make()
        except (DatasetError, OSError, ValueError, KeyError):
            if self.last_seen is None:
                return frozenset(map(self.planned.place, self.planned.pipeline.all_outputs()))
        return self.last_seen

    def environment(self) -> dict[str, str]:
        return self.record.environment(self.name)

    def command(self) -> Sequence[str]:
        """Writes the file that Kedro reads its options from: parameters in it may be lists."""
        from spatial_functa_pipeline.config.places import nest
        from spatial_functa_pipeline.files import replace_durably

        options = {
            "env": self.plan.env,
            "to_outputs": ",".join(self.planned.outputs),
            "only_missing_outputs": True,
            "params": nest(self.planned.parameters),
        }
        file = self.log.with_suffix(".yml")
        with replace_durably(file) as temporary:
            temporary.write_text(yaml.safe_dump({"run": options}, sort_keys=False))
        return ["kedro", "run", "--config", str(file)]


def _make(console: Console, plan: StudyPlan, params: dict[str, Any], jobs: int) -> None:
    """Run what is missing, then write and log the results: after an interruption, of what is there.

    Raises click.ClickException if a run has failed, at the end.
    """
    from spatial_functa_pipeline.studies.runs import FINISHED

    session = KedroSession.create(plan.project, env=plan.env, runtime_params=params)
    with session:
        context: Any = session.load_context()  # which opens MLflow's store
        record = _open_record(plan, context.mlflow.tracking.experiment.name)
        status = "FAILED"
        means: dict[str, float] = {}
        files: list[Path] = []
        try:
            state, interruption = _run(console, plan, record, jobs)
            status = "KILLED" if interruption else status
            measured = _measure(plan, state)
            files, results = _write(plan, measured)
            means = _means(plan, results)
            for one in measured:
                if one.state == FINISHED:
                    record.keep_one(one.run.name, one.metrics, _varied(plan, one))
            if not interruption and not state.failed:
                status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):  # asked for a second time, while the results are written
            status = "KILLED"
            raise
        finally:
            record.close(status, means, files)
    _say_results(console, plan, results, files)
    if interruption:
        console.print("Interrupted, and the runs with it; the same command goes on.", highlight=False)
        raise interruption
    _require_success(plan, state, measured)


def _open_record(plan: StudyPlan, experiment: str) -> StudyRecord:
    from spatial_functa_pipeline.tracking import StudyRecord

    tags = {"dataset": plan.dataset, "environment": plan.env}
    return StudyRecord(experiment, plan.name, plan.study.title, plan.study.about, plan.digest, tags)


def _run(
    console: Console, plan: StudyPlan, record: StudyRecord, jobs: int
) -> tuple[State, KeyboardInterrupt | SystemExit | None]:
    """How far the runs are at the end, and what has brought it about before they all were."""
    from spatial_functa_pipeline.studies.progress import Progress
    from spatial_functa_pipeline.studies.schedule import SideBySide

    # each is looked at before the first of them writes
    works = [work for planned in plan.runs if (work := RunProcess(planned, plan, record)).to_make()]
    with Progress(console, len(plan.runs) - len(works)) as progress:
        side_by_side = SideBySide(works, jobs, usable_cores(), progress.show)
        try:
            return side_by_side.run(), None
        except (KeyboardInterrupt, SystemExit) as interruption:
            return side_by_side.state, interruption


def _measure(plan: StudyPlan, state: State) -> list[MeasuredRun]:
    """What became of all runs. Those that an interruption has ended, or kept from beginning, are not looked at."""
    failed = {work.name for work in state.failed}
    words = {True: "failed", False: "made stale by another run: give the command again"}
    ended = {work.name: "not begun" for work in state.waiting} | {work.name: "interrupted" for work in state.running}
    return [
        planned.unmeasured(plan.project, ended[name])
        if (name := planned.run.name) in ended
        else planned.measured(plan.project, words[name in failed])
        for planned in plan.runs
    ]


def _write(plan: StudyPlan, measured: Sequence[MeasuredRun]) -> tuple[list[Path], pd.DataFrame]:
    """The results' files; and the table of the variants."""
    from spatial_functa_pipeline.files import replace_durably
    from spatial_functa_pipeline.studies.figure import drawable, study_figure
    from spatial_functa_pipeline.studies.tables import markdown, results_table, runs_table
    from spatial_functa_pipeline.study_report import study_page

    study, folder = plan.study, plan.folder
    runs = runs_table(study, measured)
    results = results_table(study, runs)
    writers: dict[str, Callable[[Path], object]] = {
        "runs.csv": lambda path: runs.to_csv(path, index=False),
        "results.csv": lambda path: results.to_csv(path, index=False),
        "results.md": lambda path: path.write_text(markdown(study, runs, results, plan.command)),
        "study.yml": lambda path: path.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)),
    }
    if drawable(study, results):
        figure = study_figure(study, runs, results)
        writers["results.png"] = lambda path: figure.savefig(path, dpi=150, format="png")
    picture = folder / "results.png" if "results.png" in writers else None
    page = partial(study_page, plan, measured, runs, results, picture)
    writers["report.html"] = lambda path: path.write_text(page(), encoding="utf-8")  # the last: it has the figure in it
    for name, write in writers.items():
        with replace_durably(folder / name) as temporary:
            write(temporary)
    return [folder / name for name in writers], results


def _means(plan: StudyPlan, results: pd.DataFrame) -> dict[str, float]:
    """As in `psnr/latent_shape 8x8x8`."""
    return {
        f"{metric}/{row['variant']}": float(row[f"{metric}_mean"])
        for metric in plan.study.measure
        for _, row in results.iterrows()
        if row[f"{metric}_n"]
    }


def _varied(plan: StudyPlan, one: MeasuredRun) -> dict[str, Any]:
    return {key: one.run.variant.parameters.get(key) for key in plan.study.varied} | {"seed": one.run.seed}


def _say_results(console: Console, plan: StudyPlan, results: pd.DataFrame, files: Sequence[Path]) -> None:
    from rich.markdown import Markdown

    from spatial_functa_pipeline.studies.tables import table_lines

    console.print(plan.study.title, style="bold", highlight=False)
    console.print(Markdown("\n".join(table_lines(plan.study, results))))
    console.print(
        f"In {plan.folder.relative_to(plan.project)}: {', '.join(file.name for file in files)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"[bold]report[/bold]: {(plan.folder / 'report.html').as_uri()}", highlight=False, soft_wrap=True)


def _require_success(plan: StudyPlan, state: State, measured: Sequence[MeasuredRun]) -> None:
    from spatial_functa_pipeline.studies.runs import missing_metrics

    problems = [f"{len(state.failed)} of {len(plan.runs)} runs failed"] if state.failed else []
    for work, lines in state.failed.items():
        problems += [f"{work.name} failed; its log is {work.log}", *(f"    {line}" for line in lines.splitlines())]
    missing, known = missing_metrics(plan.study, measured)
    if missing and known:
        problems.append(f"measure: no output has {', '.join(missing)}; there are: {', '.join(known)}")
    if problems:
        raise click.ClickException("\n  ".join(problems))


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: with the processes that it has started."""
    from spatial_functa_pipeline.training.interruption import stop_process

    def stop(number: int, frame: FrameType | None) -> None:
        stop_process(number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
