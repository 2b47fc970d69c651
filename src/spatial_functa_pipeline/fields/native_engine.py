"""The CPU engine (`native_engine.cpp`): compiled once for this machine, kept on disk, and known to torch as four operators.

It does what `torch_engine.TorchEngine` does, in float32 or with bfloat16 products, several times faster: points go through all
layers in blocks that stay in the cache. For the backward pass it keeps as much as it is allowed, and computes the rest again.
Shapes as in `siren`.
"""

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import weakref
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


class NativeEngineMemoryError(MemoryError):
    """There is not enough memory for what the engine is to compute."""


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "points", "cells", "neighbours", "layers", "width", "channels")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("half", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("cell", "weight", "shifts")),
        *((name, ctypes.c_void_p) for name in ("first", "hidden", "output_weight", "output_bias", "targets", "kept")),
        ("kept_points", ctypes.c_int64),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p) for name in ("shifts", "first", "hidden", "output_weight", "output_bias", "targets")
    ]


@cache
def load() -> ctypes.CDLL:
    """The compiled engine; compiles it if that was not done before, for this process alone if it cannot be kept.

    Raises NativeEngineError.
    """
    compiler = _compiler()
    name = f"engine-{_key(compiler)}.so"
    try:
        library = _cache_folder() / name
        if not library.exists():
            with replace_durably(library) as built:
                _compile(compiler, built)
    except OSError as error:
        logger.warning("The field's CPU engine cannot be kept (%s): it is compiled for this process alone", error)
        return _compiled_for_this_process(compiler, name)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeEngineError(f"{library} cannot be loaded ({error}); delete it to have it built again") from error


def _compiled_for_this_process(compiler: list[str], name: str) -> ctypes.CDLL:
    try:
        with tempfile.TemporaryDirectory() as folder:  # once it is loaded, the file may go
            library = Path(folder) / name
            _compile(compiler, library)
            return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeEngineError(f"the compiled engine cannot be stored or loaded: {error}") from error


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "g++")
    compiler = shlex.split(named)
    if not compiler or shutil.which(compiler[0]) is None:
        raise NativeEngineError(
            f"there is no C++ compiler {named!r}; install g++, or name one in the environment variable CXX"
        )
    return compiler


def _key(compiler: list[str]) -> str:
    """What a compiled engine depends on: a home folder may be shared by different machines, and a machine is updated.

    The compiler's version and the processor's abilities are in the predefined macros.
    """
    macros = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    libraries = (_library(compiler, name) for name in ("libc.so.6", "libgomp.so.1"))
    parts = (_SOURCE.read_bytes(), macros, " ".join(_FLAGS).encode(), *libraries)
    return short_digest(short_digest([part]).encode() for part in parts)


def _library(compiler: list[str], name: str) -> bytes:
    """The library that the compiler links, or what it says where it has none of that name."""
    answer = _run([*compiler, f"-print-file-name={name}"]).strip()
    path = Path(os.fsdecode(answer))
    return path.read_bytes() if path.is_file() else answer


def _cache_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "spatial_functa_pipeline"
    except RuntimeError as error:  # HOME is not set, and the system knows no user of this number
        raise FileNotFoundError("there is no home folder") from error


def _compile(compiler: list[str], library: Path) -> None:
    logger.info("Compiling the field's CPU engine with %s, once on this machine", " ".join(compiler))
    _run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(library)])


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except OSError as error:
        raise NativeEngineError(f"{command[0]} cannot be run: {error}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines()
        first = next((line for line in lines if "error" in line), "no message")
        raise NativeEngineError(f"{Path(command[0]).name} failed: {first}") from error


def has_bf16_products() -> bool:
    """Whether this processor has bfloat16 products; without them the engine takes float32 instead."""
    return bool(load().functa_has_bf16())


def _check(shifts: Tensor, shared: list[Tensor], more: dict[str, Tensor]) -> None:
    """Raises ValueError unless the engine can read all tensors as what they stand for: it looks at no size itself."""
    first, hidden, output_weight, output_bias, cell, weight = shared
    if shifts.ndim != 4 or cell.ndim != 2 or output_weight.ndim != 2:
        raise ValueError(
            "the CPU engine takes shifts (N, cells, L, W), neighbours (Q, k) and an output layer (h, W), got "
            f"{tuple(shifts.shape)}, {tuple(cell.shape)} and {tuple(output_weight.shape)}"
        )
    rows, cells, layers, width = shifts.shape
    if layers < 1 or width < 1 or width % WIDTH_MULTIPLE:
        raise ValueError(
            f"the CPU engine takes sine layers of widths that are multiples of {WIDTH_MULTIPLE}, got {layers} of {width}"
        )
    (points, neighbours), channels = cell.shape, len(output_weight)
    at_points = (rows, points, channels)
    expected = {
        "shifts": (shifts, tuple(shifts.shape)),
        "first layer": (first, (points, width)),
        "hidden layers": (hidden, (layers - 1, width, width)),
        "output weight": (output_weight, (channels, width)),
        "output bias": (output_bias, (channels,)),
        "neighbours": (cell, (points, neighbours)),
        "neighbours' weights": (weight, (points, neighbours)),
        **{name: (tensor, tuple(shifts.shape) if name == "direction" else at_points) for name, tensor in more.items()},
    }
    for name, (tensor, shape) in expected.items():
        dtype = torch.int32 if tensor is cell else torch.float32
        if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(
                f"the CPU engine takes contiguous {dtype} tensors of the CPU, and {name} is {tensor.dtype} on "
                f"{tensor.device}" + ("" if tensor.is_contiguous() else ", not contiguous")
            )
        if tuple(tensor.shape) != shape:
            raise ValueError(f"the CPU engine takes {name} of shape {shape} here, got {tuple(tensor.shape)}")
    if cell.numel() and not 0 <= int(cell.min()) <= int(cell.max()) < cells:
        raise ValueError(f"neighbours are cells from {cell.min()} to {cell.max()}, and a row has {cells}")


def _problem(
    shared: list[Tensor],
    shifts: Tensor,
    kept: Tensor,
    kinds: int,
    scale: float = 0.0,
    half: bool = False,
    **more: Tensor,
) -> _Problem:
    """What the engine is called with; `more` are the other tensors that it reads, which are checked with the rest."""
    _check(shifts, shared, more)
    first, hidden, output_weight, output_bias, cell, weight = shared
    rows, cells, layers, width = shifts.shape
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
        targets=more["targets"].data_ptr() if "targets" in more else None,
        kept=kept.data_ptr(),
        kept_points=kept.numel() // max(1, _bytes_of_a_point(shifts, kinds, half)),
    )


class _Blocks:
    """Blocks of memory that are used again: memory that is new costs more time than what is kept in it saves.

    As many as were in use at once stay the process's, each with as much as was ever written to it.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}

    def lend(self, size: int, limit: int) -> Tensor:
        """`size` bytes, of a block of `limit` bytes that comes back when nothing refers to them. Raises RuntimeError."""
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        free = self._free.setdefault(limit, [])
        try:
            block = free.pop()
        except IndexError:
            block = torch.empty(limit, dtype=torch.uint8)
        lent = (ctypes.c_uint8 * size).from_address(block.data_ptr())
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.frombuffer(lent, dtype=torch.uint8)


_blocks = _Blocks()

_KEPT_BY_VALUES, _KEPT_BY_GRADIENT = 1, 2
"""Numbers for each unit of the layers 1 … L − 1: its argument, and the gradient of the sine below."""


def _bytes_of_a_point(shifts: Tensor, kinds: int, half: bool) -> int:
    _, _, layers, width = shifts.shape
    return kinds * (layers - 1) * width * (2 if half else 4)


def _kept_size(shifts: Tensor, shared: list[Tensor], kinds: int, half: bool, limit: int) -> int:
    """Bytes of what is kept: of all points, or of as many of the first ones as `limit` bytes have room for.

    Nothing where that is half of the points or less: it would save little of the time of a field that is large.
    """
    each, points = _bytes_of_a_point(shifts, kinds, half), len(shifts) * len(shared[0])
    count = min(points, limit // each) if each else 0
    return each * count if 2 * count > points else 0


def _memory(size: int, limit: int) -> Tensor:
    try:
        return _blocks.lend(size, limit)
    except RuntimeError:  # torch's own kind of MemoryError: then nothing is kept
        return torch.empty(0, dtype=torch.uint8)


def _call(name: str, problem: _Problem, *arguments: Tensor | _Gradients) -> None:
    """Runs a function of the engine. Raises NativeEngineMemoryError."""
    pointers = (
        ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.byref(argument)
        for argument in arguments
    )
    if getattr(load(), name)(ctypes.byref(problem), *pointers):
        raise NativeEngineMemoryError(
            f"not enough memory for the field's CPU engine: {problem.threads} threads, {problem.layers} layers of width "
            f"{problem.width}"
        )


def _like(*tensors: Tensor) -> tuple[list[Tensor], _Gradients]:
    gradients = [torch.empty_like(tensor) for tensor in tensors]
    return gradients, _Gradients(*(gradient.data_ptr() for gradient in gradients))


@torch.library.custom_op("spatial_functa::values", mutates_args=(), device_types="cpu")
def _values(shifts: Tensor, shared: list[Tensor], limit: int) -> tuple[Tensor, Tensor]:
    shifts = shifts.contiguous()
    kept = _memory(_kept_size(shifts, shared, _KEPT_BY_VALUES, False, limit), limit)
    problem = _problem(shared, shifts, kept, _KEPT_BY_VALUES)
    values = shifts.new_empty(problem.rows, problem.points, problem.channels)
    _call("functa_values", problem, values)
    return values, kept


@torch.library.custom_op("spatial_functa::values_backward", mutates_args=(), device_types="cpu")
def _values_backward(from_values: Tensor, shifts: Tensor, shared: list[Tensor], kept: Tensor) -> list[Tensor]:
    from_values, shifts = from_values.contiguous(), shifts.contiguous()
    problem = _problem(shared, shifts, kept, _KEPT_BY_VALUES, from_values=from_values)
    gradients, pointers = _like(shifts, *shared[:4])
    _call("functa_values_backward", problem, from_values, pointers)
    return gradients


@torch.library.custom_op("spatial_functa::gradient", mutates_args=(), device_types="cpu")
def _gradient(
    shifts: Tensor, shared: list[Tensor], targets: Tensor, scale: float, half: bool, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    shifts, targets = shifts.contiguous(), targets.contiguous()
    kept = _memory(_kept_size(shifts, shared, _KEPT_BY_GRADIENT, half, limit), limit)
    problem = _problem(shared, shifts, kept, _KEPT_BY_GRADIENT, scale, half, targets=targets)
    gradient, values = torch.empty_like(shifts), torch.empty_like(targets)
    _call("functa_gradient", problem, gradient, values)
    return gradient, values, kept


@torch.library.custom_op("spatial_functa::gradient_backward", mutates_args=(), device_types="cpu")
def _gradient_backward(
    direction: Tensor,
    from_values: Tensor,
    shifts: Tensor,
    shared: list[Tensor],
    targets: Tensor,
    scale: float,
    half: bool,
    kept: Tensor,
) -> list[Tensor]:
    direction, from_values, shifts, targets = (t.contiguous() for t in (direction, from_values, shifts, targets))
    given = {"targets": targets, "direction": direction, "from_values": from_values}
    problem = _problem(shared, shifts, kept, _KEPT_BY_GRADIENT, scale, half, **given)
    gradients, pointers = _like(shifts, *shared[:4], targets)
    _call("functa_gradient_backward", problem, direction, from_values, pointers)
    return gradients


def _empty(*tensors: Tensor) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


@_values.register_fake
def _(shifts: Tensor, shared: list[Tensor], limit: int) -> tuple[Tensor, Tensor]:
    size = _kept_size(shifts, shared, _KEPT_BY_VALUES, False, limit)
    return shifts.new_empty(len(shifts), len(shared[0]), len(shared[2])), shifts.new_empty(size, dtype=torch.uint8)


@_gradient.register_fake
def _(
    shifts: Tensor, shared: list[Tensor], targets: Tensor, scale: float, half: bool, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, values = _empty(shifts, targets)
    size = _kept_size(shifts, shared, _KEPT_BY_GRADIENT, half, limit)
    return gradient, values, shifts.new_empty(size, dtype=torch.uint8)


@_values_backward.register_fake
def _(from_values: Tensor, shifts: Tensor, shared: list[Tensor], kept: Tensor) -> list[Tensor]:
    return _empty(shifts, *shared[:4])


@_gradient_backward.register_fake
def _(
    direction: Tensor,
    from_values: Tensor,
    shifts: Tensor,
    shared: list[Tensor],
    targets: Tensor,
    scale: float,
    half: bool,
    kept: Tensor,
) -> list[Tensor]:
    return _empty(shifts, *shared[:4], targets)


def _keep_for_values(ctx: Context, inputs: tuple[Tensor, list[Tensor], int], output: tuple[Tensor, Tensor]) -> None:
    (shifts, shared, _), (_, kept) = inputs, output
    ctx.save_for_backward(shifts, kept, *shared)
    ctx.set_materialize_grads(False)  # zeros for what is kept would be as large


def _differentiate_values(
    ctx: Context, from_values: Tensor, from_kept: None
) -> tuple[Tensor, list[Tensor | None], None]:
    shifts, kept, *shared = ctx.saved_tensors
    from_shifts, *from_siren = _values_backward(from_values, shifts, shared, kept)
    return from_shifts, [*from_siren, None, None], None


class _GradientContext(Context, Protocol):
    scale: float
    half: bool


def _keep_for_gradient(
    ctx: _GradientContext,
    inputs: tuple[Tensor, list[Tensor], Tensor, float, bool, int],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    (shifts, shared, targets, ctx.scale, ctx.half, _), (_, _, kept) = inputs, output
    ctx.save_for_backward(shifts, targets, kept, *shared)
    ctx.set_materialize_grads(False)


def _differentiate_gradient(
    ctx: _GradientContext, direction: Tensor | None, from_values: Tensor | None, from_kept: None
) -> tuple[Tensor, list[Tensor | None], Tensor, None, None, None]:
    shifts, targets, kept, *shared = ctx.saved_tensors
    direction = torch.zeros_like(shifts) if direction is None else direction
    from_values = torch.zeros_like(targets) if from_values is None else from_values
    from_shifts, *from_siren, from_targets = _gradient_backward(
        direction, from_values, shifts, shared, targets, ctx.scale, ctx.half, kept
    )
    return from_shifts, [*from_siren, None, None], from_targets, None, None, None


_values.register_autograd(_differentiate_values, setup_context=_keep_for_values)
_gradient.register_autograd(_differentiate_gradient, setup_context=_keep_for_gradient)


@dataclass(frozen=True)
class NativeEngine:
    """`TorchEngine`'s values and gradients, on the CPU in float32, differentiable once. Raises NativeEngineMemoryError.

    `bf16`: whether this processor has bfloat16 products (`has_bf16_products`); without them they are float32.
    `floats_at_once`: numbers of a kind that are held for what torch computes beside the engine, at z = 0.
    `kept_bytes`: how much a call that is to be differentiated may keep for that; what has no room is computed again, and
    nothing is kept where most of it would be.
    """

    bf16: bool = False
    floats_at_once: int = 2**20
    kept_bytes: int = 2**27

    def values(self, siren: Siren, geometry: Geometry, shifts: Tensor) -> Tensor:
        """y `(N, Q, h)`."""
        limit = self._limit(shifts, *siren)
        values, _ = _values(by_row(geometry, shifts), [*siren, *geometry.neighbours], limit)
        return values

    def gradient(
        self, siren: Siren, geometry: Geometry, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision
    ) -> tuple[Tensor, Tensor]:
        """Gradient of `scale / 2 · Σ (y − targets)²` for the shifts, of their shape, and y `(N, Q, h)`."""
        half, limit = precision == "bf16" and self.bf16, self._limit(shifts, *siren, targets)
        shared = [*siren, *geometry.neighbours]
        gradient, values, _ = _gradient(by_row(geometry, shifts), shared, targets, scale, half, limit)
        return gradient.view(shifts.shape), values

    def _limit(self, *tensors: Tensor) -> int:
        """Of what a call with these may keep."""
        return self.kept_bytes if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) else 0
