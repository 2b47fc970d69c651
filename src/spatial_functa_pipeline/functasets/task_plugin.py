"""The task of a build, as Dask's workers keep it. Imported by `scheduling` where it is used: `distributed` takes its time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from distributed import Worker, WorkerPlugin, get_worker

T = TypeVar("T")


class TaskPlugin(WorkerPlugin, Generic[T]):
    """Keeps the task in its worker, which gets a GPU of its own in a local cluster."""

    def __init__(self, task: Callable[[int], T]) -> None:
        self.task = task

    def setup(self, worker: Worker) -> None:
        """Called by Dask, in the worker."""
        if isinstance(worker.name, int) and (count := torch.cuda.device_count()) > 1:
            listed = os.environ.get("CUDA_VISIBLE_DEVICES")
            devices = listed.split(",") if listed else [str(index) for index in range(count)]
            os.environ["CUDA_VISIBLE_DEVICES"] = devices[worker.name % len(devices)]


def run_task(plugin: str, item: int) -> object:
    """The task that the worker, in which this is called, has under the name `plugin`."""
    kept = get_worker().plugins[plugin]
    assert isinstance(kept, TaskPlugin)
    return kept.task(item)
