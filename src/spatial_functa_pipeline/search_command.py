"""`kedro search`: try parameters, each as a variant of a study is run, and write the best as a file that `kedro run` takes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from kedro.framework.cli.utils import _split_params
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata

from spatial_functa_pipeline.run_command import ProjectCommand

if TYPE_CHECKING:  # what they import takes seconds, which every command would wait for
    from rich.console import Console

    from spatial_functa_pipeline.config.search import SearchConfig
    from spatial_functa_pipeline.config.study import StudyConfig
    from spatial_functa_pipeline.config_loader import ProjectConfigLoader
    from spatial_functa_pipeline.studies.search import Trial, Trials
    from spatial_functa_pipeline.study_plan import PlannedRun, StudyPlan
    from spatial_functa_pipeline.tracking import StudyRecord

BEST = "best.yml"


@click.command("search", cls=ProjectCommand)
@click.argument("name", required=False)
@click.option("--env", "-e", default=None, help="Kedro configuration environment name.")
@click.option("--params", default="", callback=_split_params, help="As for `kedro run`; for all trials.")
@click.option(
    "--trials", type=click.IntRange(1), default=None, help="How many are to end, instead of the file's number."
)
@click.option("--dry-run", is_flag=True, help="Say what has been tried, and what would be.")
@click.pass_obj
def search(
    metadata: ProjectMetadata,
    name: str | None,
    env: str | None,
    params: dict[str, Any],
    trials: int | None,
    dry_run: bool,
) -> None:
    """Look for the best parameters by a metric of validation, and write them as a file for `kedro run --config`.

    NAME is a file in conf/<environment>/searches; without it, all are listed. What trials have in common is made once. Given
    again, the command goes on until so many trials have ended. One that fails does not end it.
    """
    from rich.console import Console

    from spatial_functa_pipeline.config.places import flatten
    from spatial_functa_pipeline.hooks.one_writer import locked
    from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS
    from spatial_functa_pipeline.study_command import sigterm_as_exit

    console = Console(width=None if Console().is_terminal else 160)
    env = env or str(CONFIG_LOADER_ARGS["default_run_env"])
    files = searches_of(metadata.project_path / "conf", env)
    if name is None:
        _list_searches(console, files, env)
        return
    if name not in files:
        raise click.ClickException(
            f"there is no search {name} in conf/{env}/searches; there are: {', '.join(files) or 'none'}"
        )
    one = Search(name, read_search(files[name]), env, params, metadata.project_path)
    one.require_sound_keys(dict(flatten(params)))
    one.plan_of(one.first_point)  # whether all that does not depend on the point is right
    if dry_run:
        _say_what_would_run(console, one, one.open_trials(one.log if one.log.exists() else None), trials)
        return
    with sigterm_as_exit(), locked(one.project, f"search-{one.env}-{name}"):
        found = one.open_trials(one.log)
        found.take_over()
        _search(console, one, found, trials)


@dataclass(frozen=True)
class Search:
    """A search in an environment.

    Attributes:
        name: of its file.
        config: what it says.
        env: the environment.
        given: parameters that all trials are given, nested; they win over those of the search.
        project: the project's folder.
    """

    name: str
    config: SearchConfig
    env: str
    given: dict[str, Any]
    project: Path

    @property
    def first_point(self) -> dict[str, Any]:
        """Some point of the space."""
        return {key: values[0] if isinstance(values, list) else values.low for key, values in self.config.space.items()}

    def study_of(self, *points: Mapping[str, Any]) -> StudyConfig:
        """Points as the variants of a study."""
        from spatial_functa_pipeline.config.study import StudyConfig

        config = self.config
        return StudyConfig.model_validate(
            {
                "title": config.title,
                "about": config.about,
                "set": config.set,
                "variants": [{"vary": {key: [value] for key, value in point.items()}} for point in points],
                "seeds": [self.given.get("seed", self.loader.tree.seed)],
                "outputs": [config.output],
                "measure": [config.metric],
            }
        )

    @cached_property
    def loader(self) -> ProjectConfigLoader:
        """Of the environment, read once."""
        from spatial_functa_pipeline.study_plan import loader_of

        return loader_of(self.project, self.env)

    def plan_of(self, point: Mapping[str, Any]) -> StudyPlan:
        """One trial. Raises click.ClickException if its parameters are wrong."""
        from spatial_functa_pipeline.study_plan import plan_of

        given = {key: value for key, value in self.given.items() if key != "seed"}
        plan = plan_of(self.study_of(point), f"search_{self.name}", self.loader, given, self.project)
        if (recipe := plan.runs[0].catalog.load("params:recipe")) == "as_printed":
            raise click.ClickException(
                f"Nothing was run: recipe is {recipe}, which validates on the test images: what is chosen would fit them"
            )
        return plan

    @property
    def folder(self) -> Path:
        """Of its results."""
        return self.plan_of(self.first_point).folder

    @property
    def log(self) -> Path:
        """Of all trials."""
        return self.folder / "trials.log"

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Of the trial of `first_point` all that change results, by dotted keys: the environment's and what is given."""
        from pydantic_core import to_jsonable_python

        from spatial_functa_pipeline.config.places import NAMED_APART, flatten, may_name

        written = self.plan_of(self.first_point).runs[0].catalog.load("parameters")
        plain = to_jsonable_python(written, fallback=str)  # Kedro puts typed blocks where it has validated
        return {key: value for key, value in flatten(plain) if key in NAMED_APART or may_name(key)}

    def open_trials(self, log: Path | None) -> Trials:
        """Raises click.ClickException if there is no optuna."""
        from spatial_functa_pipeline.studies.search import MissingOptunaError, Trials

        try:
            return Trials(self.config, log, self.parameters)
        except MissingOptunaError as error:
            raise click.ClickException(f"{error}: pip install 'spatial_functa_pipeline[search]'") from None

    def require_sound_keys(self, given: Mapping[str, Any]) -> None:
        """Raises click.ClickException if the command line gives what the search chooses."""
        if clash := sorted(set(given) & set(self.config.space)):
            raise click.ClickException(
                f"Nothing was run: --params gives {', '.join(clash)}, which the search chooses itself"
            )

    def value_of(self, planned: PlannedRun) -> float:
        """The metric of a trial that has been made. Raises click.ClickException if there is none, or it is no number."""
        import pandas as pd

        config, found = self.config, planned.catalog.load(self.config.output)
        if config.metric not in found:
            raise click.ClickException(f"{config.output} has no {config.metric}; it has {', '.join(map(str, found))}")
        value = found[config.metric]
        if isinstance(value, pd.Series):
            values = value.dropna()
            if not len(values):
                raise click.ClickException(f"{config.metric} was never measured")
            best = values.max() if config.direction == "maximise" else values.min()
            value = best if config.take == "best" else values.iloc[-1]
        if not math.isfinite(value):
            raise click.ClickException(f"{config.metric} is {value}")
        return float(value)

    def write(self, found: Trials) -> list[Path]:
        """The table of all trials, the best first, and the file of the best."""
        from spatial_functa_pipeline.config.places import flatten, nest
        from spatial_functa_pipeline.files import replace_durably
        from spatial_functa_pipeline.studies.search import in_order

        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["trial", *self.config.space, self.config.metric, "failed"])
        for trial in in_order(found.ended, self.config.direction):
            rows.writerow([trial.number, *trial.point.values(), trial.value, trial.reason])
        texts = {"trials.csv": table.getvalue()}
        if best := found.best:
            params = {**dict(flatten(self.config.set)), **dict(flatten(best.point)), **dict(flatten(self.given))}
            comment = f"# The best of {len(found.ended)} trials, {self.config.metric} {best.value:.6g}: kedro run --config …\n"
            texts[BEST] = comment + yaml.safe_dump({"run": {"env": self.env, "params": nest(params)}}, sort_keys=False)
        for name, text in texts.items():
            with replace_durably(self.folder / name) as temporary:
                temporary.write_text(text)
        return [self.folder / name for name in texts]


def searches_of(conf: Path, env: str) -> dict[str, Path]:
    """The files of an environment's searches, by name."""
    return {file.stem: file for file in sorted((conf / env / "searches").glob("*.yml"))}


def read_search(file: Path) -> SearchConfig:
    """Raises click.ClickException, with a line for each thing that is wrong with it."""
    from pydantic import ValidationError

    from spatial_functa_pipeline.config.presets import find_field
    from spatial_functa_pipeline.config.search import SearchConfig
    from spatial_functa_pipeline.hooks.parameters import problem_lines

    problems = []
    try:
        config = SearchConfig.model_validate(yaml.safe_load(file.read_text()))
        for key in config.keys:
            try:
                find_field(key)
            except ValueError as error:
                problems.append(str(error))
    except ValidationError as error:
        problems = problem_lines(error, "search")
    except yaml.YAMLError as error:
        problems = [str(error)]
    if problems:
        raise click.ClickException("\n  ".join(["Nothing was run:", *(f"{file}: {problem}" for problem in problems)]))
    return config


def _list_searches(console: Console, files: Mapping[str, Path], env: str) -> None:
    from rich.table import Table

    if not files:
        raise click.ClickException(f"there is no search in conf/{env}/searches; docs/studies.md says how to write one")
    table = Table("search", "title", "trials", "by")
    for name, file in files.items():
        config = read_search(file)
        table.add_row(name, config.title, str(config.trials or config.size), f"{config.sampler}, {config.metric}")
    console.print(table)


def _say_what_would_run(console: Console, one: Search, found: Trials, trials: int | None) -> None:
    wanted, ended = found.wanted(trials), len(found.ended)
    of = f" of {one.config.size:,} points" if one.config.size else ""
    console.print(f"{ended} trials have ended, {wanted} are to{of}.", highlight=False)
    for key, values in one.config.space.items():
        text = ", ".join(map(str, values)) if isinstance(values, list) else f"{values.low:g} to {values.high:g}"
        console.print(f"  {key}: {text}", highlight=False, markup=False, soft_wrap=True)
    for number, point in enumerate(found.remaining()[: max(0, wanted - ended)], ended + 1):
        console.print(f"{number}: {_in_words(point)}", highlight=False, markup=False, soft_wrap=True)
    _say_best(console, one, found)


def _search(console: Console, one: Search, found: Trials, trials: int | None) -> None:
    wanted = found.wanted(trials)
    session: Any = KedroSession.create(one.project, env=one.env, runtime_params=one.given)
    with session:
        context = session.load_context()  # which opens MLflow's store
        record = _open_record(one, context.mlflow.tracking.experiment.name)
        status = "KILLED"
        try:
            while len(found.ended) < wanted:
                trial = found.begin()
                console.print(
                    f"[{len(found.ended) + 1}/{wanted}] {_in_words(trial.point)}", highlight=False, markup=False
                )
                value, reason = _try(one, trial, record)
                found.end(trial, value, reason)
                one.write(found)
                text = f"failed: {reason}" if value is None else f"{one.config.metric} {value:.6g}"
                console.print(f"    {text}", highlight=False, markup=False, soft_wrap=True)
            status = "FINISHED"
        finally:
            record.close(status, {}, one.write(found))
    _say_best(console, one, found)
    if found.best is None:
        raise click.ClickException("all trials have failed")


def _open_record(one: Search, experiment: str) -> StudyRecord:
    from spatial_functa_pipeline.studies.search import definition_digest
    from spatial_functa_pipeline.tracking import StudyRecord

    config = one.config
    tags = {"environment": one.env, "search": one.name}
    return StudyRecord(
        experiment, one.name, config.title, config.about, definition_digest(config, one.parameters), tags
    )


def _try(one: Search, trial: Trial, record: StudyRecord) -> tuple[float | None, str]:
    """The value of a point; or None, and why there is none."""
    from spatial_functa_pipeline.studies.schedule import SideBySide, usable_cores
    from spatial_functa_pipeline.study_command import RunProcess

    try:
        plan = one.plan_of(trial.point)
        works = [RunProcess(planned, plan, record) for planned in plan.runs if not planned.done]
        state = SideBySide(works, 1, usable_cores(), lambda state: None).run()
        for lines in state.failed.values():
            return None, lines.splitlines()[-1]
        return one.value_of(plan.runs[0]), ""
    except click.ClickException as error:
        return None, " ".join(error.message.split())


def _say_best(console: Console, one: Search, found: Trials) -> None:
    if best := found.best:
        console.print(
            f"Best of {len(found.ended)}: {one.config.metric} {best.value:.6g}", style="bold", highlight=False
        )
        console.print(f"    {_in_words(best.point)}", highlight=False, markup=False, soft_wrap=True)
        path = (one.folder / BEST).relative_to(one.project)
        console.print(f"kedro run --config {path}", highlight=False, markup=False, soft_wrap=True)


def _in_words(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items())
