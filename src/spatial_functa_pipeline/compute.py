"""Where and how to compute: the device, the field's CPU kernel, and `torch.compile` where it repays its half a minute."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .config import RuntimeConfig
from .fields.field import SpatialField
from .fields.native import WIDTH_MULTIPLE, NativeKernel, NativeKernelError, load, multiplies_bf16
from .fields.siren import Precision, TorchKernel

logger = logging.getLogger(__name__)

_CALLS_THAT_REPAY = 3000
"""A compiled graph saves tens of milliseconds a call, and compiling costs about 40 s once."""
_BYTES_PER_ACTIVATION = 4 * 12
"""Of one kind in the outer step: sine, cosine and their gradients, in the inner step and in its derivative."""


def resolve_device(name: str) -> torch.device:
    """`auto`: CUDA, then Apple's MPS, then the CPU. A device asked for by name but absent is an error."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = torch.device(name)
    if device.type != "cpu" and not getattr(torch, device.type).is_available():
        raise RuntimeError(f"runtime.device is {name}, but this PyTorch sees no such device: use cpu or auto")
    return device


def accelerated(
    field: SpatialField, runtime: RuntimeConfig, *, calls: int, device: torch.device, name: str, training: bool = False
) -> Callable[..., Any]:
    """The field's `forward`, as fast as `device` allows; `field` itself keeps the faster kernel.

    `runtime.compile` decides. `off`: plain torch operations. `auto`: on a CPU the kernel in `fields/kernel.cpp`, compiled in
    seconds; elsewhere, or where that kernel cannot be had, `torch.compile` if there will be enough `calls` to repay it.
    `on`: both, whatever the number of calls. Unless for `training`, CUDA graphs are used as well. What was compiled is
    kept on disk for the next run.
    """
    field.kernel = _kernel(field, runtime, device, name)
    if runtime.compile == "auto" and (isinstance(field.kernel, NativeKernel) or calls < _CALLS_THAT_REPAY):
        return field
    if runtime.compile == "off":
        return field
    if runtime.compile == "auto" and device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return field
    # A CUDA graph's results are overwritten by the next call: fine for encoding, not for gradients that add up.
    mode = "reduce-overhead" if device.type == "cuda" and not training else None
    logger.info("%s: compiling, which takes about half a minute the first time (runtime.compile=off avoids it)", name)
    return torch.compile(field, fullgraph=True, dynamic=False, mode=mode)


def _kernel(field: SpatialField, runtime: RuntimeConfig, device: torch.device, name: str) -> TorchKernel | NativeKernel:
    if field.spec.precision == "tf32" and device.type != "cuda":
        logger.info("%s: TensorFloat-32 is CUDA's; precision tf32 means float32 here", name)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return TorchKernel(floats_at_once=max(2**24, free // 2 // _BYTES_PER_ACTIVATION))
    if device.type != "cpu" or runtime.compile == "off":
        return TorchKernel()
    if field.spec.width % WIDTH_MULTIPLE or next(field.parameters()).dtype != torch.float32:
        logger.info(
            "%s: plain torch operations; a float32 field of a width that is a multiple of %d has a kernel several times "
            "faster",
            name,
            WIDTH_MULTIPLE,
        )
        return TorchKernel()
    try:
        load()
    except NativeKernelError as error:
        logger.warning("%s: plain torch operations, several times slower than the CPU kernel: %s", name, error)
        return TorchKernel()
    bf16 = multiplies_bf16()
    if field.spec.precision == "bf16" and not bf16:
        logger.info("%s: this processor has no bfloat16 products; precision bf16 means float32 here", name)
    return NativeKernel(bf16)


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """TensorFloat-32 for CUDA's float32 products and convolutions while it lasts, if `precision` asks for it, or none."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # λ's convolutions
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
