"""Where and how to run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("a device is auto, cpu, mps, cuda, or cuda:1 and the like")
    return name


def _as_written(value: Any) -> Any:
    """YAML reads `on` and `off` as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class RuntimeConfig(Block):
    """Where and how to run. Nothing here changes a result beyond rounding, so nothing here enters a fingerprint."""

    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    num_workers: Annotated[int, Field(ge=0)] = Field(0, description="processes that decode a training's images")
    progress: bool = True
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_written)] = Field(
        "auto", description="the CPU engine and torch.compile; auto: where they repay their time"
    )
    processes: PositiveInt = Field(1, description="that train together on this machine, each with a part of the batch")
    machines: PositiveInt = Field(1, description="that train together; each runs the same command")
    rendezvous: Annotated[str, Field(pattern=r"^[^\s:]+:\d+$")] | None = Field(
        None, description="host:port of one of the machines, which all of them reach"
    )

    scheduler: Annotated[str, Field(pattern=r"^(synchronous|threads|processes|(tcp://|tls://)?[^\s:]+:\d+)$")] = Field(
        "synchronous",
        description="of a functaset's build and statistics: in this process, in threads of it, in a local Dask cluster, or "
        "the address of a dask-scheduler",
    )
    workers: PositiveInt | None = Field(
        None,
        description="threads, or processes of the local Dask cluster; null: one for each core, or a process for each GPU",
    )
    replace_stale: bool = Field(
        False,
        description="whether a run replaces, unasked, a functaset that another field or other parameters made: hours of work",
    )

    @property
    def ranks(self) -> int:
        """Processes on all machines together."""
        return self.processes * self.machines

    @model_validator(mode="after")
    def _machines_can_meet(self) -> RuntimeConfig:
        if self.machines > 1 and self.rendezvous is None:
            raise ValueError(f"machines is {self.machines}: set rendezvous to host:port of one of them")
        if self.machines == 1 and self.rendezvous is not None:
            raise ValueError(f"rendezvous is {self.rendezvous}, but machines is 1: set machines, or rendezvous to null")
        if self.ranks > 1 and self.device.startswith(("mps", "cuda:")):
            raise ValueError(
                f"device {self.device} is one device, but there are {self.ranks} processes: set device to cuda or cpu"
            )
        return self
