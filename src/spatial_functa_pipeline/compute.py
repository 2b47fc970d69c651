"""Where and how to compute: the device, and `torch.compile` where it repays its half a minute."""

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from .config import RuntimeConfig

logger = logging.getLogger(__name__)

_CALLS_THAT_REPAY = 3000
"""On two CPU cores a compiled step of the default field saves 20 to 40 ms, and compiling costs about 40 s once."""


def resolve_device(name: str) -> torch.device:
    """`auto`: CUDA, then Apple's MPS, then the CPU. A device asked for by name but absent is an error."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = torch.device(name)
    if device.type != "cpu" and not getattr(torch, device.type).is_available():
        raise RuntimeError(f"runtime.device is {name}, but this PyTorch sees no such device: use cpu or auto")
    return device


def compiled(
    function: Callable[..., Any], runtime: RuntimeConfig, *, calls: int, device: torch.device, name: str
) -> Callable[..., Any]:
    """`function` as one compiled graph for fixed shapes, or as it is.

    `runtime.compile` decides: `on`, `off`, or `auto`: only if it will be called often enough, and if there is a C++
    compiler (on a CPU) to do it. What is compiled is cached on disk by PyTorch: the next run starts in seconds.
    """
    if runtime.compile == "off":
        return function
    if runtime.compile == "auto":
        if calls < _CALLS_THAT_REPAY:
            return function
        if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            logger.info("%s: not compiled, as there is no C++ compiler (g++); it would be about twice as fast", name)
            return function
    logger.info("%s: compiling, which takes about half a minute the first time (runtime.compile=off avoids it)", name)
    return torch.compile(function, fullgraph=True, dynamic=False)
