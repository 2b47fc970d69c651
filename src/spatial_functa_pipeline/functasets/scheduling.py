"""Who carries out the tasks of a functaset, one for each shard: this process, threads of it, or Dask's processes."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import dask
from dask.delayed import delayed

from spatial_functa_pipeline.functasets.errors import WorkersDiedError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Scheduling:
    """Where tasks run.

    Args:
        scheduler: `synchronous`: in this process, one after the other; `threads`: in threads of it; `processes`: in a
            local cluster; or the address of a running dask-scheduler, `tcp://host:port`, whose workers reach the same files.
        workers: threads, or processes of the local cluster; None: one for each core, or a process for each GPU.
    """

    scheduler: str = "synchronous"
    workers: int | None = None

    def run(self, task: Callable[[int], T], items: Iterable[int]) -> Iterator[T]:
        """What `task` returns for each item, as it is done, in any order.

        A worker that dies gives its task to another; the first error of a task ends it all.

        Raises:
            OSError: the scheduler cannot be reached.
            WorkersDiedError: a task has killed every worker that tried it.
        """
        if self.scheduler == "synchronous":
            for item in items:
                yield delayed(task)(item).compute(scheduler="synchronous")
            return
        if self.scheduler == "threads":
            yield from _in_threads(task, items, self.workers or os.cpu_count() or 1)
            return
        with ExitStack() as stack:
            yield from _distribute(self._client(stack), task, items, stack)

    def _client(self, stack: ExitStack) -> Client:
        """A client of the cluster, which is closed with the stack."""
        from distributed import Client, LocalCluster

        # Every connection that opens or closes is news to Dask, with a traceback where the other side was faster.
        logging.getLogger("distributed").setLevel(logging.ERROR)
        if self.scheduler != "processes":
            client = stack.enter_context(Client(self.scheduler))
        else:
            workers = self.workers or _gpus() or os.cpu_count() or 1
            threads = max(1, (os.cpu_count() or 1) // workers)
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            # Dask's nannies write it into this process's environment, too, for what it starts afterwards.
            stack.callback(_restore, {name: os.environ.get(name) for name in names})
            environment = dict.fromkeys(names, threads) | {"DASK_LOGGING__DISTRIBUTED": "error"}
            with dask.config.set(
                {f"distributed.nanny.pre-spawn-environ.{name}": environment[name] for name in environment}
            ):
                cluster = stack.enter_context(
                    LocalCluster(n_workers=workers, threads_per_worker=1, silence_logs=logging.ERROR)
                )
            client = stack.enter_context(Client(cluster))
        logger.info("Dask dashboard: %s", client.dashboard_link)
        return client


SYNCHRONOUS = Scheduling()


def _in_threads(task: Callable[[int], T], items: Iterable[int], threads: int) -> Iterator[T]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="functaset")
    try:
        # No list of all futures: it would hold their results until the end.
        for future in as_completed({pool.submit(task, item) for item in items}):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, what has not begun is not begun


def _distribute(client: Client, task: Callable[[int], T], items: Iterable[int], stack: ExitStack) -> Iterator[T]:
    from distributed import KilledWorker, as_completed

    from spatial_functa_pipeline.functasets.task_plugin import TaskPlugin, run_task

    # A plugin reaches every worker once, those that join later too; as an argument the task, which holds the field, would go
    # through the scheduler with each item.
    # Its name is this build's alone: others may use the same workers.
    plugin = f"spatial_functa_build_{uuid.uuid4().hex}"
    client.register_plugin(TaskPlugin(task), name=plugin)
    stack.callback(client.unregister_worker_plugin, plugin)
    futures = [client.submit(run_task, plugin, item, pure=False) for item in items]
    stack.callback(client.cancel, futures)
    try:
        for future in as_completed(futures):
            yield future.result()
            future.release()
    except KilledWorker as error:
        raise WorkersDiedError(
            f"workers died again and again at the same task ({error}): they may have too little memory"
        ) from error


def _restore(variables: dict[str, str | None]) -> None:
    """Give environment variables their former values."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
