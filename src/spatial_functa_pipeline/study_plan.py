"""What a study would run, as Kedro sees it: each variant and seed with its catalog, and what is missing there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.context import KedroContext
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from spatial_functa_pipeline.config.places import Change, flatten, folder_of, may_name, nest
from spatial_functa_pipeline.config.presets import find_field
from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.datasets.fingerprint import Fingerprint, FingerprintMixin
from spatial_functa_pipeline.datasets.reporting import MetricsDataset
from spatial_functa_pipeline.digest import changes, short_digest
from spatial_functa_pipeline.hooks.conf_files import require_sound_files
from spatial_functa_pipeline.hooks.freshness import FreshnessHooks, outdated_outputs
from spatial_functa_pipeline.hooks.parameters import ParameterHooks, problem_lines
from spatial_functa_pipeline.hooks.summary import options_of
from spatial_functa_pipeline.pipeline_registry import all_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS
from spatial_functa_pipeline.studies.runs import FINISHED, MeasuredRun, StudyRun, runs_of

RESULTS = "data/09_studies"
"""Below the project: a folder for each data set, and in it one for each study."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One variant with one seed, and its outputs.

    Attributes:
        run: which one.
        parameters: what is given to it, by dotted keys.
        outputs: entries of the catalog that are asked for.
        pipeline: the nodes that they need.
        catalog: where they are.
    """

    run: StudyRun
    parameters: dict[str, Any]
    outputs: tuple[str, ...]
    pipeline: Pipeline
    catalog: DataCatalog

    @property
    def done(self) -> bool:
        """Whether all that is asked for is there and up to date. What it was made from may have been removed."""
        return all(map(self.catalog.exists, self.outputs))

    def missing(self) -> list[str]:
        """The outputs that have to be made now."""
        return [] if self.done else [*outdated_outputs(self.pipeline, self.catalog)]

    def to_make(self) -> frozenset[str]:
        """The places of those: two runs that share one have it here both."""
        return frozenset(map(self.place, self.missing()))

    def place(self, output: str) -> str:
        """Where an output is."""
        return str(getattr(self.catalog.get(output), "_filepath", output))

    @property
    def places(self) -> tuple[str, ...]:
        """Of all that is asked for."""
        return tuple(map(self.place, self.outputs))

    def measured(self, project: Path, state: str) -> MeasuredRun:
        """What became of it: its metrics if it is done, else `state`."""
        if not self.done:
            return self.unmeasured(project, state)
        found: dict[str, Any] = {}
        details: dict[str, str] = {}
        for name in self.outputs:
            if isinstance(self.catalog.get(name), MetricsDataset):
                loaded = self.catalog.load(name)
                details |= loaded.get("details", {})
                found |= loaded
        numbers = {name: float(value) for name, value in found.items() if _is_number(value)}
        return MeasuredRun(self.run, FINISHED, numbers, details, self._seconds(), self._folder(project))

    def unmeasured(self, project: Path, state: str) -> MeasuredRun:
        """The run without a look at its outputs, which may be half there."""
        return MeasuredRun(self.run, state, folder=self._folder(project))

    def _folder(self, project: Path) -> str:
        folder = Path(self.places[0]).parent
        return str(folder.relative_to(project) if folder.is_relative_to(project) else folder)

    def _seconds(self) -> float | None:
        """That it took to make all of it, as far as it is shared too; None if some of it is not known."""
        taken = [_making(self.catalog, node) for node in self.pipeline.nodes]
        return None if None in taken else sum(seconds for _, seconds in filter(None, taken))


@dataclass(frozen=True)
class StudyPlan:
    """A study in an environment.

    Attributes:
        name: of its file.
        study: what it says.
        env: the environment.
        given: parameters that all runs are given, by dotted keys; they win over those of the study.
        project: the project's folder.
        runs: all of them, in the order in which they are to be run.
    """

    name: str
    study: StudyConfig
    env: str
    given: dict[str, Any]
    project: Path
    runs: list[PlannedRun]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.runs[0].catalog.load("params:dataset"))

    @property
    def folder(self) -> Path:
        """Of its results. What `given` changes names a folder of its own, as it does for the outputs of a run."""
        changed = [Change(key, value) for key, value in sorted(self.given.items()) if _names_results(key)]
        return self.project.joinpath(RESULTS, self.dataset, self.name, *([folder_of(changed)] if changed else []))

    @property
    def command(self) -> str:
        """What makes it again."""
        return f"kedro study {self.name}{options_of({'env': self.env, 'runtime_params': self.given})}"

    @property
    def digest(self) -> str:
        """Of all that it is defined by."""
        results = {key: value for key, value in self.given.items() if _names_results(key) or key == "dataset"}
        content = [self.name, self.env, self.study.model_dump(mode="json"), results]
        return short_digest([json.dumps(content, sort_keys=True).encode()])

    @cached_property
    def makings(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Of each node the parameters and seconds of all that its outputs in the study's places were made in."""
        found: dict[str, dict[str, tuple[dict[str, Any], float]]] = {}
        for planned in self.runs:
            for node in planned.pipeline.nodes:
                if making := _making(planned.catalog, node):
                    made_by, seconds = making
                    found.setdefault(node.name, {})[planned.place(node.outputs[0])] = (_flat(made_by), seconds)
        return {name: [*places.values()] for name, places in found.items()}

    def shares(self) -> Iterator[tuple[PlannedRun, list[Node], list[str]]]:
        """For each run, in order, the nodes that it runs itself, and the outputs that one before it will have made."""
        made: set[str] = set()
        for planned in self.runs:
            missing = {name: planned.place(name) for name in planned.missing()}
            shared = [name for name, place in missing.items() if place in made]
            own = {*missing} - {*shared}
            yield planned, [node for node in planned.pipeline.nodes if own & {*node.outputs}], shared
            made |= {*missing.values()}

    def estimate(self, planned: PlannedRun, node: Node) -> float | None:
        """About how many seconds a node will take: those of the most similar one so far. None if there is none."""
        expected = next(
            (data.expected for name in node.outputs if isinstance(data := planned.catalog.get(name), FingerprintMixin)),
            None,
        )
        known = self.makings.get(node.name)
        if not known or expected is None:
            return None
        wanted = _flat(expected)
        return min(known, key=lambda making: len(changes(making[0], wanted)))[1]


def studies_of(conf: Path, env: str) -> dict[str, Path]:
    """The files of an environment's studies, by name."""
    return {file.stem: file for file in sorted((conf / env / "studies").glob("*.yml"))}


def read_study(file: Path) -> StudyConfig:
    """Raises click.ClickException, with a line for each thing that is wrong with it."""
    try:
        written = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        return StudyConfig.model_validate(written)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        problems = [str(error).splitlines()[0]]
    except ValidationError as error:
        problems = problem_lines(error, "study")
    raise _nothing_run([f"{file}: {problem}" for problem in problems])


def plan_study(name: str, env: str | None, given: Mapping[str, Any], project: Path) -> StudyPlan:
    """Look at everything that a study names, before anything runs.

    Args:
        name: of its file, without the ending.
        env: the environment; None: the project's default.
        given: nested, as `--params` has it.
        project: the project's folder.

    Raises:
        click.ClickException: with a line for each thing that is wrong.
    """
    env = env or str(CONFIG_LOADER_ARGS["default_run_env"])
    conf = project / "conf"
    loader = loader_of(project, env)
    require_sound_files(loader)
    files = studies_of(conf, env)
    if name not in files:
        raise _nothing_run(
            [f"there is no study {name} in {conf / env / 'studies'}; there are: {', '.join(files) or 'none'}"]
        )
    plan = plan_of(read_study(files[name]), name, loader, given, project)
    if problems := [*dict.fromkeys(_metric_problems(plan.runs))]:
        raise _nothing_run(problems)
    return plan


def plan_of(
    study: StudyConfig, name: str, loader: ProjectConfigLoader, given: Mapping[str, Any], project: Path
) -> StudyPlan:
    """The plan of a study that need not be in a file, under the name of its results' folder. See `plan_study`."""
    flat = dict(flatten(given))
    pipeline = all_pipelines()
    if problems := [*_key_problems(study, flat), *_output_problems(study, pipeline)]:
        raise _nothing_run(problems)
    runs, problems = [], []
    for run in runs_of(study):
        parameters = run.parameters(flat)
        try:
            catalog = _catalog(project, loader.with_parameters(nest(parameters)))
        except click.ClickException as error:
            problems += [f"{run.name}: {line.strip()}" for line in error.message.splitlines()[1:] or [error.message]]
        except (TypeError, AttributeError):
            problems.append(f"{run.name}: one key sets a block to a value, and another sets a part of that block")
        else:
            outputs = run.variant.outputs
            runs.append(PlannedRun(run, parameters, outputs, pipeline.to_outputs(*outputs), catalog))
    if problems := [*dict.fromkeys(problems), *_same_runs(runs)]:
        raise _nothing_run(problems)
    return StudyPlan(name, study, str(loader.env), flat, project, runs)


def _nothing_run(problems: Sequence[str]) -> click.ClickException:
    return click.ClickException("\n  ".join(["Nothing was run:", *problems]))


def _key_problems(study: StudyConfig, given: Mapping[str, Any]) -> Iterator[str]:
    for key in study.keys:
        try:
            find_field(key)
        except ValueError as error:
            yield str(error)
    fixed = {*study.varied, "seed"}
    for key in given:
        if clash := [
            one for one in sorted(fixed) if f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.")
        ]:
            yield f"--params gives {key}, but the study varies {', '.join(clash)} itself"


def _output_problems(study: StudyConfig, pipeline: Pipeline) -> Iterator[str]:
    known = pipeline.all_outputs()
    if unknown := [name for name in study.all_outputs if name not in known]:
        yield f"outputs: no node makes {', '.join(unknown)}; there are: {', '.join(sorted(known))}"


def _metric_problems(runs: Iterable[PlannedRun]) -> Iterator[str]:
    for planned in runs:
        if not any(isinstance(planned.catalog.get(name), MetricsDataset) for name in planned.outputs):
            kinds = {name: planned.catalog.get(name) for name in planned.catalog}
            known = [name for name, dataset in kinds.items() if isinstance(dataset, MetricsDataset)]
            yield f"outputs: {', '.join(planned.outputs)} have no metrics; these have: {', '.join(sorted(known))}"


def _same_runs(runs: Iterable[PlannedRun]) -> Iterator[str]:
    first: dict[tuple[str, ...], PlannedRun] = {}
    for planned in runs:
        other = first.setdefault(planned.places, planned)
        if other is not planned:
            yield f"{planned.run.name} and {other.run.name} are the same run: all outputs are in the same places"


def loader_of(project: Path, env: str) -> ProjectConfigLoader:
    """The configuration of an environment, of which each run's is one with parameters."""
    return ProjectConfigLoader(str(project / "conf"), env, {}, **CONFIG_LOADER_ARGS)


def _catalog(project: Path, loader: ProjectConfigLoader) -> DataCatalog:
    """The catalog of a run, which knows what is stale. Raises click.ClickException if its parameters are wrong."""
    manager = _create_hook_manager()
    _register_hooks(manager, (ParameterHooks(), FreshnessHooks()))
    context = KedroContext(
        project_path=project,
        config_loader=loader,
        env=loader.env,
        package_name=__package__,
        hook_manager=manager,
        runtime_params=loader.runtime_params,  # type: ignore[arg-type]  # attrs' converter hides its type
    )
    manager.hook.after_context_created(context=context)
    catalog = context.catalog
    assert isinstance(catalog, DataCatalog)
    return catalog


def _making(catalog: DataCatalog, node: Node) -> tuple[Fingerprint, float] | None:
    """What made a node's stored outputs, and in how many seconds: of the last that was saved."""
    found = [
        making
        for name in node.outputs
        if isinstance(data := catalog.get(name), FingerprintMixin) and (making := data.last_making())
    ]
    return max(found, key=lambda making: making[1], default=None)


def _flat(fingerprint: Fingerprint) -> dict[str, Any]:
    return fingerprint.upstream | fingerprint.parameters


def _names_results(key: str) -> bool:
    return key in ("latent_shape", "interpolation") or may_name(key)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
