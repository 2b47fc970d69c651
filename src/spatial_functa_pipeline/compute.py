"""Where and how to compute: device, the field's engine, `torch.compile` where it repays its half a minute, precision."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from spatial_functa_pipeline.config.block import NetworkPrecision
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields import native_engine
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.native_engine import WIDTH_MULTIPLE, NativeEngine, NativeEngineError
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

logger = logging.getLogger(__name__)

_CALLS_THAT_REPAY = 3000
"""A compiled graph saves tens of milliseconds a call, and compiling costs about 40 s once."""

_BYTES_PER_ACTIVATION = 4 * 12
"""Of one kind in the outer step: sine, cosine and their gradients, in the inner step and in its derivative."""


class DeviceError(RuntimeError):
    """The device that was asked for is not there, or cannot do what it is asked for."""


def resolve_device(name: str) -> torch.device:
    """`auto`: CUDA, then Apple's MPS, then the CPU. Raises DeviceError if a device asked for by name is not there."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = torch.device(name)
    if device.type != "cpu" and not getattr(torch, device.type).is_available():
        raise DeviceError(f"device is {name}, but this PyTorch sees no such device: use cpu or auto")
    return device


def accelerated(
    encoder: Encoder, runtime: RuntimeConfig, *, calls: int, device: torch.device, name: str, training: bool = False
) -> Callable[..., Any]:
    """The encoder's `forward`, as fast as `device` allows; a field itself keeps the faster engine.

    Another encoder than a field has plain torch operations, which are few. Of a field `runtime.compile` decides. `off`:
    plain torch operations. `auto`: on a CPU the engine in `native_engine.cpp`, compiled in seconds; elsewhere, or where that
    engine cannot be had, `torch.compile` if there will be enough `calls` to repay it. `on`: both, whatever the number of
    calls. Unless for `training`, CUDA graphs are used as well. What was compiled is kept on disk for the next run.
    """
    if not isinstance(encoder, SpatialField):
        return encoder
    field = encoder
    field.engine = _engine(field, runtime, device, name)
    if runtime.compile == "auto" and (isinstance(field.engine, NativeEngine) or calls < _CALLS_THAT_REPAY):
        return field
    if runtime.compile == "off":
        return field
    if runtime.compile == "auto" and device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return field
    # A CUDA graph's results are overwritten by the next call: fine for encoding, not for gradients that add up.
    mode = "reduce-overhead" if device.type == "cuda" and not training else None
    logger.info("%s: compiling, which takes about half a minute the first time (compile off avoids it)", name)
    return torch.compile(field, fullgraph=True, dynamic=False, mode=mode)


def _engine(field: SpatialField, runtime: RuntimeConfig, device: torch.device, name: str) -> TorchEngine | NativeEngine:
    if field.spec.precision == "tf32":
        available_precision("tf32", device, name)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return TorchEngine(floats_at_once=max(2**24, free // 2 // _BYTES_PER_ACTIVATION))
    if device.type != "cpu" or runtime.compile == "off":
        return TorchEngine()
    if field.spec.width % WIDTH_MULTIPLE or next(field.parameters()).dtype != torch.float32:
        logger.info(
            "%s: plain torch operations; a float32 field of a width that is a multiple of %d has an engine several times "
            "faster",
            name,
            WIDTH_MULTIPLE,
        )
        return TorchEngine()
    try:
        native_engine.load()
    except NativeEngineError as error:
        logger.warning("%s: plain torch operations, several times slower than the CPU engine: %s", name, error)
        return TorchEngine()
    bf16 = native_engine.has_bf16_products()
    if field.spec.precision == "bf16" and not bf16:
        logger.info("%s: this processor has no bfloat16 products; precision bf16 means float32 here", name)
    return NativeEngine(bf16)


@contextmanager
def tf32_products(precision: NetworkPrecision, device: torch.device) -> Iterator[None]:
    """TensorFloat-32 for the products and convolutions on a CUDA device if `precision` asks for it, or else none.

    It lasts as long as the context, for all threads. PyTorch itself leaves it on for convolutions.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    tf32 = precision == "tf32" and device.type == "cuda"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def float32_products() -> Iterator[None]:
    """No TensorFloat-32 on any device: a context, or a decorator of what is to be computed so."""
    with tf32_products("float32", torch.device("cpu")):
        yield


@contextmanager
def bf16_products(precision: NetworkPrecision, device: torch.device) -> Iterator[None]:
    """Products rounded to bfloat16 if `precision` asks for it; weights and sums stay float32.

    For a network's evaluation: the backward pass follows it, and may be outside.
    """
    if precision != "bf16":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), _Float32OnCPU() if device.type == "cpu" else nullcontext():
        yield


class _Float32OnCPU(TorchFunctionMode):
    """Within it, group normalisation and attention are in float32 whatever they are given.

    In bfloat16 they take a CPU two and six times as long, which is more than a UNet's convolutions save. CUDA's autocast
    has group normalisation so by itself.
    """

    _OPERATIONS = (F.group_norm, F.scaled_dot_product_attention)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self._OPERATIONS:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_in_float32, args), **{name: _in_float32(value) for name, value in kwargs.items()})


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


def has_bf16_products(device: torch.device) -> bool:
    """Whether `device` has bfloat16 products of its own: emulated ones are slower than those in float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def available_precision(precision: NetworkPrecision, device: torch.device, name: str) -> NetworkPrecision:
    """`precision`, or float32 where the device has none such, or would only emulate it; then that is said, with `name`."""
    if precision == "bf16" and not has_bf16_products(device):
        logger.info("%s: this %s has no bfloat16 products; precision bf16 means float32 here", name, device.type)
        return "float32"
    if precision == "tf32" and device.type != "cuda":
        logger.info("%s: TensorFloat-32 is CUDA's; precision tf32 means float32 here", name)
        return "float32"
    return precision
