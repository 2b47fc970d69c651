"""One writer for each output, whichever runs are under way: a second one waits or is told who is at it."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import click
from filelock import FileLock, Timeout
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.hooks.freshness import outdated_outputs
from spatial_functa_pipeline.studies.schedule import TRY_AGAIN

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of a file system that knows no locks, or where this process may not write."""
_PATIENCE = 1.0
"""Seconds until a process that has a lock must have written who it is."""
_POLL = 0.5
_FOR_EVER = -1.0


@dataclass(frozen=True)
class Writer:
    """Who makes an output: written into the file that it has locked."""

    pid: int
    host: str
    since: str
    variant: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}, for {self.variant}"


def lock_of(project_path: Path, name: str, writer: Writer | None = None) -> FileLock:
    """A lock that all runs of the project share, on every machine that sees its folder. It goes with its process.

    Its file may be left behind by a killed process; the next one takes it.
    """
    file = project_path / "data/.locks" / f"{name}.lock"
    # Not of a thread alone: with Kedro's other runners, one thread may save what another has begun.
    on_acquired = partial(_sign, writer) if writer else None
    return FileLock(file, thread_local=False, on_acquired=on_acquired, fallback_to_soft=False)


@contextmanager
def locked(project_path: Path, name: str) -> Iterator[None]:
    """Within it, no other run of the project is at `name`, where there are locks; waits for its turn."""
    lock = lock_of(project_path, name)

    def before_waiting() -> float:
        logger.warning("Waiting for %s: another run of this project is at it", name)
        return _FOR_EVER

    held = _acquire(lock, name, before_waiting)
    try:
        yield
    finally:
        if held:
            _give_back(lock)


def _acquire(lock: FileLock, name: str, before_waiting: Callable[[], float]) -> bool:
    """Have the lock of `name`, if need be after a wait, of as many seconds as `before_waiting` says.

    False, with a warning, where there can be no locks. Raises filelock.Timeout after those seconds.
    """
    file = Path(lock.lock_file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            lock.acquire(timeout=before_waiting(), poll_interval=_POLL)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s cannot be locked (%s): make sure yourself that no other run is at %s", file, error, name)
        return False
    return True


def _sign(writer: Writer, descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(writer)).encode(), 0)


def _signed_by(lock: FileLock) -> Writer | None:
    """Who has the lock; None if nobody can tell, as when it has just been given back."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        with suppress(OSError, ValueError, TypeError):  # not there any more, not written yet, of another version
            return Writer(**json.loads(Path(lock.lock_file).read_text()))
        if time.monotonic() > give_up:
            return None
        time.sleep(_PATIENCE / 20)


class OneWriterHooks:
    """Locks a node's outputs from before it runs until each is saved.

    Another run of the same variant would make the same once more: it is told to wait and not to. A run of another variant,
    which shares some outputs, waits; it ends if all of the node's outputs are up to date then. To make them again would
    take the time once more, and replace what the other run may be reading. Kedro knows no way to skip a node.
    """

    def __init__(self) -> None:
        self._locks: dict[str, FileLock] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the project's folder, and what the run's outputs are named by."""
        assert isinstance(context.config_loader, ProjectConfigLoader)
        self._project_path = Path(context.project_path)
        self._variant = context.config_loader.places.name

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Give back what a run of this process had that was interrupted: Kedro calls no hook then."""
        self._give_back_all()

    @hook_impl(tryfirst=True)
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Lock the outputs, in the same order in all runs.

        Raises click.ClickException, which says who makes one, or who has made all of them while this run waited.
        """
        paths = {name: getattr(catalog.get(name), "_filepath", None) for name in sorted(node.outputs)}
        files = {name: str(path) for name, path in paths.items() if path}
        waited_for: list[Writer | None] = []
        for name, file in files.items():
            self._lock(name, file, waited_for)
        if waited_for and not outdated_outputs(Pipeline([node]), catalog):
            raise _made_meanwhile([*files], next(filter(None, waited_for), None))

    @hook_impl(trylast=True)  # after whatever else is to be done with what was saved
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Give back the output's lock."""
        if lock := self._locks.pop(dataset_name, None):
            _give_back(lock)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Give back all locks."""
        self._give_back_all()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Give back all locks."""
        self._give_back_all()

    def _lock(self, name: str, path: str, waited_for: list[Writer | None]) -> None:
        """Adds to `waited_for` who had it before."""
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        place = path.removeprefix(f"{self._project_path}/")  # the folder may have another path on another machine
        lock = lock_of(
            self._project_path,
            f"{name}-{short_digest([place.encode()])}",
            Writer(os.getpid(), socket.gethostname(), since, self._variant),
        )

        def before_waiting() -> float:
            writer = _signed_by(lock)
            waited_for.append(writer)
            if writer is None:  # most likely it has just been given back
                return _PATIENCE
            if writer.variant == self._variant:
                raise _being_made(name, path, writer)
            logger.warning("Waiting for %s: it is being made by %s", name, writer)
            return _FOR_EVER

        try:
            if _acquire(lock, name, before_waiting):
                self._locks[name] = lock
        except Timeout:
            raise _being_made(name, path, None) from None

    def _give_back_all(self) -> None:
        while self._locks:
            _give_back(self._locks.popitem()[1])


def _give_back(lock: FileLock) -> None:
    with suppress(OSError):
        Path(lock.lock_file).unlink()  # before others can have it; who waits for it makes another file
    lock.release()


def _being_made(name: str, path: str, writer: Writer | None) -> click.ClickException:
    return click.ClickException(
        f"{name} ({path}) is being made by another run: {writer or 'a process that does not say who it is'}.\n"
        "Wait for its end, then give the same command with --only-missing-outputs, which makes what is missing then. Or "
        "make another variant, as with --params seed=1"
    )


class TryAgainError(click.ClickException):
    """The same command goes on, if it is given again: its exit code says so to programs."""

    exit_code = TRY_AGAIN


def _made_meanwhile(names: list[str], writer: Writer | None) -> TryAgainError:
    return TryAgainError(
        f"{' and '.join(names)}: made meanwhile by {writer or 'another run'}.\n"
        "Give the same command with --only-missing-outputs, which goes on with what is missing"
    )
