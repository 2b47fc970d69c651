"""The CPU engine (`native_engine.cpp`): compiled once for this machine, kept on disk, and known to torch as four operators.

It does what `torch_engine.TorchEngine` does, in float32 or with bfloat16 products, several times faster: points go through all
layers in blocks that stay in the cache, and nothing is stored for the backward pass. Shapes as in `siren`.
"""

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.fields.geometry import Geometry
from spatial_functa_pipeline.fields.siren import Context, FieldPrecision, Siren
from spatial_functa_pipeline.fields.torch_engine import by_row
from spatial_functa_pipeline.files import replace_durably

logger = logging.getLogger(__name__)

WIDTH_MULTIPLE = 32
_SOURCE = Path(__file__).with_name("native_engine.cpp")
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp"]


class NativeEngineError(RuntimeError):
    """The engine could not be compiled or loaded."""


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "points", "cells", "neighbours", "layers", "width", "channels")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("half", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("cell", "weight", "shifts")),
        *((name, ctypes.c_void_p) for name in ("first", "hidden", "output_weight", "output_bias", "targets")),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("shifts", "first", "hidden", "output_weight", "output_bias")]


@cache
def load() -> ctypes.CDLL:
    """The compiled engine; compiles it if that was not done before. Raises NativeEngineError."""
    named = os.environ.get("CXX", "g++")
    compiler = shlex.split(named)
    if not compiler or shutil.which(compiler[0]) is None:
        raise NativeEngineError(
            f"there is no C++ compiler {named!r}; install g++, or name one in the environment variable CXX"
        )
    # The processor's abilities are in the predefined macros: a home folder may be shared by different machines.
    macros = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    key = short_digest([_SOURCE.read_bytes(), b"\0", macros, b"\0", " ".join(_FLAGS).encode()])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spatial_functa_pipeline"
    library = folder / f"engine-{key}.so"
    if not library.exists():
        try:
            with replace_durably(library) as built:
                logger.info("Compiling the field's CPU engine with %s, once on this machine", named)
                _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(built)])
        except OSError as error:
            raise NativeEngineError(f"the compiled engine cannot be stored: {error}") from error
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeEngineError(f"{library} cannot be loaded ({error}); delete it to have it built again") from error


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines()
        first = next((line for line in lines if "error" in line), "no message")
        raise NativeEngineError(f"{Path(command[0]).name} failed: {first}") from error


def has_bf16_products() -> bool:
    """Whether this processor has bfloat16 products; without them the engine takes float32 instead."""
    return bool(load().functa_has_bf16())


def _problem(shared: list[Tensor], shifts: Tensor, targets: Tensor | None, scale: float, half: bool) -> _Problem:
    first, hidden, output_weight, output_bias, cell, weight = shared
    rows, cells, layers, width = shifts.shape
    floats = (shifts, *shared[:4], weight, *([] if targets is None else [targets]))
    if not all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in floats):
        raise ValueError("the CPU engine takes contiguous float32 tensors")
    if width % WIDTH_MULTIPLE:
        raise ValueError(f"the CPU engine takes widths that are multiples of {WIDTH_MULTIPLE}, got {width}")
    points, neighbours = cell.shape
    return _Problem(
        rows=rows,
        points=points,
        cells=cells,
        neighbours=neighbours,
        layers=layers,
        width=width,
        channels=len(output_weight),
        scale=scale,
        threads=torch.get_num_threads(),
        half=half,
        cell=cell.data_ptr(),
        weight=weight.data_ptr(),
        shifts=shifts.data_ptr(),
        first=first.data_ptr(),
        hidden=hidden.data_ptr(),
        output_weight=output_weight.data_ptr(),
        output_bias=output_bias.data_ptr(),
        targets=None if targets is None else targets.data_ptr(),
    )


def _like(shared: list[Tensor], shifts: Tensor) -> tuple[list[Tensor], _Gradients]:
    tensors = [torch.empty_like(tensor) for tensor in (shifts, *shared[:4])]
    return tensors, _Gradients(*(tensor.data_ptr() for tensor in tensors))


@torch.library.custom_op("spatial_functa::values", mutates_args=(), device_types="cpu")
def _values(shifts: Tensor, shared: list[Tensor]) -> Tensor:
    shifts = shifts.contiguous()
    values = shifts.new_empty(len(shifts), len(shared[0]), len(shared[2]))
    problem = _problem(shared, shifts, None, 0.0, False)
    load().functa_values(ctypes.byref(problem), ctypes.c_void_p(values.data_ptr()))
    return values


@torch.library.custom_op("spatial_functa::values_backward", mutates_args=(), device_types="cpu")
def _values_backward(from_values: Tensor, shifts: Tensor, shared: list[Tensor]) -> list[Tensor]:
    from_values, shifts = from_values.contiguous(), shifts.contiguous()
    gradients, pointers = _like(shared, shifts)
    problem = _problem(shared, shifts, None, 0.0, False)
    load().functa_values_backward(
        ctypes.byref(problem), ctypes.c_void_p(from_values.data_ptr()), ctypes.byref(pointers)
    )
    return gradients


@torch.library.custom_op("spatial_functa::gradient", mutates_args=(), device_types="cpu")
def _gradient(shifts: Tensor, shared: list[Tensor], targets: Tensor, scale: float, half: bool) -> Tensor:
    shifts, targets = shifts.contiguous(), targets.contiguous()
    gradient = torch.empty_like(shifts)
    problem = _problem(shared, shifts, targets, scale, half)
    load().functa_gradient(ctypes.byref(problem), ctypes.c_void_p(gradient.data_ptr()))
    return gradient


@torch.library.custom_op("spatial_functa::gradient_backward", mutates_args=(), device_types="cpu")
def _gradient_backward(
    direction: Tensor, shifts: Tensor, shared: list[Tensor], targets: Tensor, scale: float, half: bool
) -> list[Tensor]:
    direction, shifts, targets = direction.contiguous(), shifts.contiguous(), targets.contiguous()
    gradients, pointers = _like(shared, shifts)
    problem = _problem(shared, shifts, targets, scale, half)
    load().functa_gradient_backward(
        ctypes.byref(problem), ctypes.c_void_p(direction.data_ptr()), ctypes.byref(pointers)
    )
    return gradients


@_values.register_fake
def _(shifts: Tensor, shared: list[Tensor]) -> Tensor:
    return shifts.new_empty(len(shifts), len(shared[0]), len(shared[2]))


@_gradient.register_fake
def _(shifts: Tensor, shared: list[Tensor], targets: Tensor, scale: float, half: bool) -> Tensor:
    return torch.empty_like(shifts, memory_format=torch.contiguous_format)


@_values_backward.register_fake
@_gradient_backward.register_fake
def _(direction: Tensor, shifts: Tensor, shared: list[Tensor], *more: object) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (shifts, *shared[:4])]


def _keep_for_values(ctx: Context, inputs: tuple[Tensor, list[Tensor]], output: Tensor) -> None:
    shifts, shared = inputs
    ctx.save_for_backward(shifts, *shared)


def _differentiate_values(ctx: Context, from_values: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    shifts, *shared = ctx.saved_tensors
    from_shifts, *from_siren = _values_backward(from_values, shifts, shared)
    return from_shifts, [*from_siren, None, None]


class _GradientContext(Context, Protocol):
    scale: float
    half: bool


def _keep_for_gradient(
    ctx: _GradientContext, inputs: tuple[Tensor, list[Tensor], Tensor, float, bool], output: Tensor
) -> None:
    shifts, shared, targets, ctx.scale, ctx.half = inputs
    ctx.save_for_backward(shifts, targets, *shared)


def _differentiate_gradient(
    ctx: _GradientContext, direction: Tensor
) -> tuple[Tensor, list[Tensor | None], None, None, None]:
    shifts, targets, *shared = ctx.saved_tensors
    from_shifts, *from_siren = _gradient_backward(direction, shifts, shared, targets, ctx.scale, ctx.half)
    return from_shifts, [*from_siren, None, None], None, None, None


_values.register_autograd(_differentiate_values, setup_context=_keep_for_values)
_gradient.register_autograd(_differentiate_gradient, setup_context=_keep_for_gradient)


@dataclass(frozen=True)
class NativeEngine:
    """`TorchEngine`'s values and gradients, on the CPU in float32, differentiable once. Targets have no gradient.

    `bf16`: whether this processor has bfloat16 products (`has_bf16_products`); without them they are float32.
    """

    bf16: bool = False

    def values(self, siren: Siren, geometry: Geometry, shifts: Tensor) -> Tensor:
        """y `(N, Q, h)`."""
        return _values(by_row(geometry, shifts), [*siren, *geometry.neighbours])

    def gradient(
        self, siren: Siren, geometry: Geometry, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision
    ) -> Tensor:
        """Gradient of `scale / 2 · Σ (y − targets)²` for the shifts, of their shape."""
        half = precision == "bf16" and self.bf16
        gradient = _gradient(by_row(geometry, shifts), [*siren, *geometry.neighbours], targets, scale, half)
        return gradient.view(shifts.shape)
