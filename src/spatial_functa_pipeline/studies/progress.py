"""How far the runs of a study are: a table that is drawn again and again on a terminal, else a line for each change."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from spatial_functa_pipeline.studies.schedule import State, Work, last_lines


def duration(seconds: float) -> str:
    """As in `12 s`, `3 min 20 s`, `1 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """Shows a `State` of works; `cached` others were done before."""

    def __init__(self, console: Console, cached: int) -> None:
        self._console, self._cached = console, cached
        self._begun = time.monotonic()
        self._started: dict[Work, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, state: State) -> None:
        """The state of now."""
        for work in state.running:
            self._started.setdefault(work, time.monotonic())
        self._say_changes(state)
        if self._live and time.monotonic() - self._drawn > 1:
            self._drawn = time.monotonic()
            self._live.update(self._picture(state), refresh=True)

    def _say_changes(self, state: State) -> None:
        for word, works in (("begun", state.running), ("done", state.done), ("failed", state.failed)):
            for work in works:
                if (word, work.name) not in self._said:
                    self._said.add((word, work.name))
                    self._console.print(self._line(word, work, state), soft_wrap=True, markup=False, highlight=False)

    def _line(self, word: str, work: Work, state: State) -> str:
        """As in `[3/12] done after 2 min 10 s: MLP, seed=0`."""
        took = (
            f" after {duration(time.monotonic() - self._started[work])}"
            if word != "begun" and work in self._started
            else ""
        )
        log = f" ({work.log})" if word == "failed" else ""
        return f"{self._count(state)} {word}{took}: {work.name}{log}"

    def _count(self, state: State) -> str:
        ended = self._cached + len(state.done) + len(state.failed)
        return f"[{ended}/{ended + len(state.running) + len(state.waiting)}]"

    def _picture(self, state: State) -> Group:
        elapsed = duration(time.monotonic() - self._begun)
        failed = f", {len(state.failed)} failed" if state.failed else ""
        title = f"{self._count(state)} runs ended{failed}, {len(state.waiting)} waiting, {elapsed}"
        table = Table(
            Column("run", overflow="fold"),
            Column("since", no_wrap=True),
            Column("last line", no_wrap=True, overflow="ellipsis"),
        )
        for work in state.running:
            since = duration(time.monotonic() - self._started[work])
            table.add_row(Text(work.name), since, Text("".join(last_lines(work.log, 1))))
        return Group(Text(title), table)
