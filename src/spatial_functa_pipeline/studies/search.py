"""The trials of a search, in a file that outlives the process: what was tried, what came out, what to try next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_functa_pipeline.config.search import RangeConfig, SearchConfig
from spatial_functa_pipeline.config.study import Parameters
from spatial_functa_pipeline.digest import short_digest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

_REASON = "reason"
"""Why a trial has failed. One that has failed without it was killed, and is tried again."""


class MissingOptunaError(ImportError):
    """Optuna is not installed."""


@dataclass(frozen=True)
class Trial:
    """One point that is tried, or was.

    Attributes:
        number: from 0 on.
        point: a value for each key of the space.
        value: of the metric; None if it has none.
        reason: why it has none.
    """

    number: int
    point: Parameters
    value: float | None = None
    reason: str = ""


class Trials:
    """All trials of one search. A search with another space, metric or parameters has its own in the same file.

    Raises:
        MissingOptunaError: if there is no optuna.
    """

    def __init__(self, config: SearchConfig, file: Path | None, parameters: Parameters) -> None:
        """Open the file, or begin it; None: no file, and no trials yet. `parameters`: see `definition_digest`."""
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise MissingOptunaError("a search needs optuna") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._asked: dict[int, OptunaTrial] = {}
        storage = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
        self._study = optuna.create_study(
            storage=storage,
            study_name=definition_digest(config, parameters),
            direction="maximize" if config.direction == "maximise" else "minimize",
            load_if_exists=True,
        )
        # The same seed again would draw what it has drawn before.
        seed = config.sampler_seed + len(self._study.get_trials(deepcopy=False))
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        self._study.sampler = samplers.get(config.sampler, optuna.samplers.RandomSampler)(seed=seed)

    def take_over(self) -> None:
        """What a process has begun that is gone is to be tried again. For the one process that may begin trials."""
        import optuna

        for trial in self._of_states("RUNNING"):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if trial.params.keys() == self._config.space.keys():
                self._study.enqueue_trial(trial.params)

    @property
    def ended(self) -> list[Trial]:
        """Those that have a value, then those that have failed."""
        return [self._read(trial) for trial in (*self._of_states("COMPLETE"), *self._failed)]

    @property
    def best(self) -> Trial | None:
        """The first of those with the best value."""
        done = [trial for trial in self.ended if trial.value is not None]
        sign = 1 if self._config.direction == "maximise" else -1
        return max(done, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def wanted(self, trials: int | None) -> int:
        """How many are to end: `trials`, else as many as the search says, and no more than a grid has points."""
        count = trials or self._config.trials
        if self._config.sampler != "grid":
            return count or self._config.size or 0
        return min(count or self._config.size or 0, self._config.size or 0)

    def remaining(self) -> list[Parameters]:
        """Points of a grid that were not tried yet, in order; none of another sampler."""
        points = (self._config.points or []) if self._config.sampler == "grid" else []
        tried = [trial.point for trial in self.ended]
        return [point for point in points if point not in tried]

    def begin(self) -> Trial:
        """The next one: first those that were killed, then what the sampler chooses."""
        if self._config.sampler == "grid" and not self._of_states("WAITING"):
            self._study.enqueue_trial({key: json.dumps(value) for key, value in self.remaining()[0].items()})
        asked = self._study.ask(self._distributions())
        self._asked[asked.number] = asked
        return Trial(asked.number, self._point(asked.params))

    def end(self, trial: Trial, value: float | None, reason: str = "") -> None:
        """Its value; None if it has failed, and why."""
        import optuna

        if value is not None:
            self._study.tell(trial.number, value)
            return
        self._asked[trial.number].set_user_attr(_REASON, reason)
        self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    @property
    def _failed(self) -> list[FrozenTrial]:
        return [trial for trial in self._of_states("FAIL") if _REASON in trial.user_attrs]

    def _of_states(self, *states: str) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name in states]

    def _read(self, trial: FrozenTrial) -> Trial:
        value = trial.value if trial.state.name == "COMPLETE" else None
        return Trial(trial.number, self._point(trial.params), value, trial.user_attrs.get(_REASON, ""))

    def _point(self, params: Parameters) -> Parameters:
        """Values as they stand in the space: choices are stored as JSON, since they may be lists."""
        return {
            key: params[key] if isinstance(values, RangeConfig) else json.loads(params[key])
            for key, values in self._config.space.items()
        }

    def _distributions(self) -> dict[str, BaseDistribution]:
        return dict(_distribution(key, values) for key, values in self._config.space.items())


def _distribution(key: str, values: RangeConfig | list[Any]) -> tuple[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return key, CategoricalDistribution([json.dumps(value) for value in values])
    if values.integer:
        return key, IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return key, FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def definition_digest(config: SearchConfig, parameters: Parameters) -> str:
    """Of what makes the values of trials comparable; `trials` and words do not.

    Args:
        config: of the search. Its `set` is a part of `parameters`.
        parameters: all that change results, as one trial has them, by dotted keys.
    """
    content = config.model_dump(mode="json", exclude={"title", "about", "trials", "sampler", "sampler_seed", "set"})
    return short_digest([json.dumps([content, parameters], sort_keys=True).encode()])


def in_order(trials: list[Trial], direction: str) -> Iterator[Trial]:
    """The best first, those without a value last."""
    sign = -1 if direction == "maximise" else 1
    return iter(sorted(trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number)))
