"""The SIREN's two engines: the native one against torch's in float64, and torch's in parts against itself in one."""

import copy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from spatial_functa_pipeline.fields import native_engine
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.geometry import GEOMETRIES, NearestGeometry
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine, NativeEngineMemoryError, has_bf16_products
from spatial_functa_pipeline.fields.siren import Siren
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

# grid, resolution, interpolation, images, layers, width, channels
SHAPES = [
    pytest.param(((3, 3), (12, 12), "nearest", 1, 5, 64, 1), id="cells"),
    pytest.param(((1, 3), (10, 30), "nearest", 1, 4, 32, 3), id="cells-beyond-a-block"),
    pytest.param(((5,), (35,), "nearest", 1, 3, 256, 2), id="odd-points-wide"),
    pytest.param(((2, 4), (8, 8), "linear", 3, 3, 64, 2), id="linear"),
    pytest.param(((3, 1, 2), (5, 4, 4), "linear", 2, 3, 32, 1), id="linear-3d"),
    pytest.param(((2, 2), (8, 8), "nearest", 1, 1, 32, 1), id="no-hidden-layer"),
    pytest.param(((1, 1), (10, 15), "nearest", 1, 3, 32, 1), id="one-cell"),
    pytest.param(((1, 1), (10, 15), "linear", 1, 3, 32, 1), id="one-cell-linear"),
    pytest.param(((2, 2), (18, 30), "linear", 3, 3, 32, 2), id="linear-beyond-a-block"),
]


def problem(shape):
    grid, resolution, interpolation, images, layers, width, channels = shape
    torch.manual_seed(len(resolution) + width)
    geometry = GEOMETRIES[interpolation](grid, resolution, resolution)
    shifts = torch.randn(images, *grid, layers, width)
    scale = 1.5 / width**0.5
    siren = Siren(
        torch.randn(len(geometry.coordinates), width),
        scale * torch.randn(layers - 1, width, width),
        scale * torch.randn(channels, width),
        torch.randn(channels),
    )
    return siren, geometry, shifts, geometry.to_points(torch.randn(images, *resolution, channels))


def double(siren, geometry, shifts, targets):
    siren = Siren(*(tensor.double().requires_grad_() for tensor in siren))
    return siren, copy.deepcopy(geometry).double(), *(t.double().requires_grad_() for t in (shifts, targets))


def single(siren, geometry, shifts, targets):
    siren = Siren(*(tensor.clone().requires_grad_() for tensor in siren))
    return siren, geometry, *(tensor.clone().requires_grad_() for tensor in (shifts, targets))


def gradients(engine, siren, geometry, shifts, targets, precision):
    """Values, shift gradient with the values beside it, and derivatives for everything, along fixed directions."""
    generator = torch.Generator().manual_seed(1)
    values = engine.values(siren, geometry, shifts)
    gradient, beside = engine.gradient(siren, geometry, shifts, targets, 0.3, precision)
    wanted = [shifts, *siren, targets]
    results = [values, gradient]

    def along(output):
        return (output * torch.randn(output.shape, generator=generator).to(output)).sum()

    for scalar in (along(values), along(gradient), along(gradient) + along(beside)):
        derivatives = torch.autograd.grad(scalar, wanted, retain_graph=True, allow_unused=True)
        results += [
            torch.zeros_like(to) if found is None else found for to, found in zip(wanted, derivatives, strict=True)
        ]
    return [*results, beside]


def relative_errors(found, wanted):
    return [((a.double() - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(found, wanted, strict=True)]


@pytest.fixture(autouse=True)
def _compiler(request):
    if "native" in request.function.__name__ and shutil.which("g++") is None:
        pytest.skip("needs g++")


@pytest.mark.parametrize("shape", SHAPES)
def test_native_values_and_derivatives_match_float64(shape):
    wanted = gradients(TorchEngine(), *double(*problem(shape)), "float32")
    found = gradients(NativeEngine(), *single(*problem(shape)), "float32")
    # The output bias sums residuals of either sign, which cancel.
    assert max(relative_errors(found, wanted)) < 1e-4
    assert sorted(relative_errors(found, wanted))[-3] < 2e-6


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_native_bf16_is_near_float64_and_not_float32(shape):
    if not has_bf16_products():
        pytest.skip("this processor has no bfloat16 products")
    wanted = gradients(TorchEngine(), *double(*problem(shape)), "float32")
    whole = gradients(NativeEngine(), *single(*problem(shape)), "float32")
    half = gradients(NativeEngine(bf16=True), *single(*problem(shape)), "bf16")
    errors, small = relative_errors(half, wanted), relative_errors(whole, wanted)
    assert all(1e-4 < error < 0.05 for error in (errors[1], *errors[8:11], errors[13]))
    assert errors[1] > 100 * small[1]
    assert torch.equal(half[0], whole[0])  # the final pass is in float32


KEPT_OF_A_POINT = {"float32": 8, "bf16": 4}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("shape", [*SHAPES[:5], SHAPES[8]])
@pytest.mark.parametrize("share", [0.6, 1.0])
def test_native_derivatives_from_what_was_kept_are_those_computed_again(shape, precision, share):
    """Of all points or some; in bfloat16 what is kept is rounded as its products are."""
    if precision == "bf16" and not has_bf16_products():
        pytest.skip("this processor has no bfloat16 products")
    siren, geometry, shifts, targets = problem(shape)
    points = targets.shape[:2].numel()
    room = int(share * points) * KEPT_OF_A_POINT[precision] * siren.hidden[..., 0].numel()
    found, wanted = (
        gradients(NativeEngine(bf16=True, kept_bytes=kept), *single(siren, geometry, shifts, targets), precision)
        for kept in (room, 0)
    )
    errors = relative_errors(found, [result.double() for result in wanted])
    assert max(errors[:2]) == 0
    assert max(errors) < (1e-6 if precision == "float32" else 0.01)
    assert max(errors) > 0 or precision == "float32" or share < 1


def test_native_derivatives_may_be_asked_for_twice_and_of_one_result_alone():
    siren, geometry, shifts, targets = single(*problem(SHAPES[0].values[0]))
    engines = NativeEngine(), NativeEngine(kept_bytes=0)
    kept, plain = (engine.gradient(siren, geometry, shifts, targets, 0.3, "float32") for engine in engines)
    for result, wanted in zip(kept, plain, strict=True):
        one, two = (torch.autograd.grad(result.square().sum(), shifts, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(one, two)
        torch.testing.assert_close(one, torch.autograd.grad(wanted.square().sum(), shifts, retain_graph=True)[0])


def test_native_keeps_something_only_where_it_is_to_be_differentiated(monkeypatch):
    """As much as was computed or, if that is too much, as there is room for; in memory that is used again."""
    lent, lend = [], native_engine._blocks.lend
    monkeypatch.setattr(native_engine._blocks, "lend", lambda *sizes: lent.append(lend(*sizes)) or lent[-1])

    def kept(engine, siren, geometry, shifts, targets):
        lent.clear()
        engine.values(siren, geometry, shifts)
        for precision in ("float32", "bf16"):
            engine.gradient(siren, geometry, shifts, targets, 0.3, precision)
        return [tensor.numel() for tensor in lent]

    whole = 9 * 16 * 4 * 64 * 4  # points, hidden layers, width, bytes
    engine, roomy, plain = NativeEngine(has_bf16_products()), 10 * whole, problem(SHAPES[0].values[0])
    assert kept(engine, *plain) == [0, 0, 0]
    assert kept(engine, *single(*plain)) == [whole, 2 * whole, whole if has_bf16_products() else 2 * whole]
    with torch.no_grad():
        assert kept(engine, *single(*plain)) == [0, 0, 0]
    assert kept(NativeEngine(kept_bytes=whole * 3 // 2), *single(*plain)) == [whole, *[whole * 3 // 2] * 2]
    assert kept(NativeEngine(kept_bytes=whole), *single(*plain)) == [whole, 0, 0]
    for _ in range(3):  # two at once, given back, lent again
        lent[:] = [lend(100, roomy), lend(200, roomy)]
    assert len({tensor.data_ptr() for tensor in lent}) == 2
    lent.clear()
    assert len(native_engine._blocks._free[roomy]) <= 4


def test_native_keeps_nothing_where_there_is_no_memory_for_it(monkeypatch):
    arguments = single(*problem(SHAPES[0].values[0]))
    wanted = gradients(NativeEngine(), *arguments, "float32")

    def fail(size, limit):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(native_engine._blocks, "lend", fail)
    for found, expected in zip(gradients(NativeEngine(), *arguments, "float32"), wanted, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_native_gradients_for_images_match_float64(interpolation):
    """Through all inner steps: the shared first one, and those of the engine."""

    def gradient(field, images):
        images = images.requires_grad_()
        latents = field.encode(images)
        direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2)).to(latents)
        return torch.autograd.grad((latents * direction).sum(), images)[0]

    torch.manual_seed(0)
    field = SpatialField(FieldSpec(LatentShape((2, 2), 3), (8, 8), 2, interpolation, 32, 3, 10.0))
    images = torch.rand(3, 8, 8, 2)
    wanted = gradient(copy.deepcopy(field).double(), images.double())
    field.engine = NativeEngine()
    assert relative_errors([gradient(field, images)], [wanted])[0] < 1e-5


@pytest.mark.parametrize(
    "shape", [((3, 11), (12, 44), "nearest", 1, 4, 64, 1), ((2, 2), (30, 36), "linear", 5, 3, 32, 1)]
)
def test_native_results_do_not_depend_on_the_number_of_threads(shape):
    """Rows are independent; what sums over rows, or in another order over points, may be rounded otherwise."""
    arguments = problem(shape)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(gradients(NativeEngine(), *single(*arguments), "float32"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])
        assert max(relative_errors(other, [one.double() for one in results[0]])) < 1e-5


def sines(arguments):
    """Sine and cosine of the arguments `(N, 32)` as the engine has them: one layer of 32, each an output of its own."""
    geometry = NearestGeometry((len(arguments),), (len(arguments),), (len(arguments),))
    siren = Siren(torch.zeros(1, 32), torch.zeros(0, 32, 32), torch.eye(32), torch.zeros(32))
    shifts = arguments[None, :, None].clone().requires_grad_()
    sine = NativeEngine().values(siren, geometry, shifts)
    (cosine,) = torch.autograd.grad(sine.sum(), shifts)
    return sine.detach().reshape(arguments.shape), cosine.reshape(arguments.shape)


def test_native_sines_are_exact_to_a_ten_millionth_up_to_a_thousand():
    generator = torch.Generator().manual_seed(0)
    even = torch.linspace(-1000, 1000, 2**19)
    quarters = (torch.arange(-636, 637) * torch.pi / 2)[:, None] + torch.linspace(-1e-3, 1e-3, 96)
    small = torch.randn(2**16, generator=generator) * 10 ** torch.linspace(-30, 1, 2**16)
    arguments = torch.cat([even, quarters.flatten(), small])
    arguments = arguments[: len(arguments) // 32 * 32].reshape(-1, 32)
    sine, cosine = sines(arguments)
    assert (sine - arguments.double().sin()).abs().max() < 1e-7
    assert (cosine - arguments.double().cos()).abs().max() < 1e-7


def test_native_sines_stay_bounded_and_keep_nan():
    """An inner loop that diverges has any argument."""
    huge = torch.tensor([1e4, 1e6, 1e7, 1e10, 1e30, 3e38]).repeat(16).reshape(-1, 32)
    for values in (*sines(huge), *sines(-huge)):
        assert values.abs().max() <= 1 + 1e-6
    for odd in (float("nan"), float("inf")):
        assert all(values.isnan().all() for values in sines(torch.full((1, 32), odd)))


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, -1, 0x7FC00000])
def test_native_bf16_keeps_nan_whatever_its_bits(bits):
    if not has_bf16_products():
        pytest.skip("this processor has no bfloat16 products")
    siren, geometry, shifts, targets = problem(SHAPES[0].values[0])
    hidden = siren.hidden.clone()
    hidden.view(torch.int32)[0, 3, 5] = bits
    siren = siren._replace(hidden=hidden)
    gradient, _ = NativeEngine(bf16=True).gradient(siren, geometry, shifts, targets, 0.3, "bf16")
    assert gradient.isnan().any()


def test_native_refuses_what_it_cannot_do():
    siren, geometry, shifts, _ = problem(((2, 2), (4, 4), "nearest", 1, 3, 24, 1))
    with pytest.raises(ValueError, match="multiples of 32"):
        NativeEngine().values(siren, geometry, shifts)
    siren, geometry, shifts, _ = double(*problem(((2, 2), (4, 4), "nearest", 1, 3, 32, 1)))
    with pytest.raises(ValueError, match="float32"):
        NativeEngine().values(siren, geometry, shifts)


def strided(tensor):
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


@pytest.mark.parametrize("spoil", [strided, torch.Tensor.double, lambda t: t[..., :-1].contiguous(), lambda t: t[None]])
@pytest.mark.parametrize("which", range(7))
def test_native_refuses_tensors_that_it_would_read_beyond_their_end(spoil, which):
    siren, geometry, shifts, targets = problem(((2, 3), (8, 12), "linear", 2, 3, 32, 3))
    tensors = [*siren, geometry.cell, geometry.weight, targets]
    tensors[which] = spoil(tensors[which])
    if which == 6 and spoil is strided:
        pytest.skip("targets are made contiguous")
    *parts, cell, weight, targets = tensors
    geometry.cell, geometry.weight = cell, weight
    names = ("first layer", "hidden layers", "output", "output bias", "neighbours", "neighbours", "targets")
    with pytest.raises(ValueError, match=rf"the CPU engine takes .*{names[which]}"):
        NativeEngine().gradient(Siren(*parts), geometry, shifts, targets, 0.3, "float32")


@pytest.mark.parametrize("cell", [-1, 6])
def test_native_refuses_cells_that_a_row_has_not(cell):
    siren, geometry, shifts, _ = problem(((2, 3), (8, 12), "linear", 2, 3, 32, 3))
    geometry.cell[5, 1] = cell
    with pytest.raises(ValueError, match=r"neighbours are cells from .* and a row has 6"):
        NativeEngine().values(siren, geometry, shifts)


OUT_OF_MEMORY = """
import resource, sys, torch
from spatial_functa_pipeline.fields.native_engine import NativeEngine, NativeEngineMemoryError
from spatial_functa_pipeline.fields.siren import Siren

class Geometry:  # a point with very many neighbours, whose places each thread keeps
    cells_per_row = 1
    def __init__(self, count):
        self.neighbours = torch.zeros(1, count, dtype=torch.int32), torch.ones(1, count)

torch.set_num_threads(int(sys.argv[1]))
siren = Siren(torch.zeros(1, 32), torch.zeros(1, 32, 32), torch.ones(1, 32), torch.zeros(1))
shifts = torch.zeros(2, 2, 32).requires_grad_()
NativeEngine().values(siren, Geometry(1), shifts).sum().backward()  # starts the threads
many = Geometry(2**19)
values = NativeEngine().values(siren, many, shifts)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26,) * 2)
for call in (values.sum().backward, lambda: NativeEngine().values(siren, many, shifts)):
    try:
        call()
    except NativeEngineMemoryError as error:
        print(error)
"""


def test_native_out_of_memory_is_an_error_of_its_own(monkeypatch):
    """Whoever catches a MemoryError catches it, too."""
    monkeypatch.setattr(native_engine, "load", lambda: SimpleNamespace(functa_values=lambda *arguments: 1))
    siren, geometry, shifts, _ = problem(SHAPES[0].values[0])
    with pytest.raises(
        NativeEngineMemoryError, match="not enough memory for the field's CPU engine: 1 threads"
    ) as caught:
        NativeEngine().values(siren, geometry, shifts)
    assert isinstance(caught.value, MemoryError)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_native_out_of_memory_is_a_memory_error(threads):
    """In any thread, forwards and backwards; the process goes on."""
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY, threads], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not enough memory for the field's CPU engine") == 2


@pytest.mark.parametrize("shape", [*SHAPES[:5], SHAPES[6]])
@pytest.mark.parametrize("points_at_once", [6, 40])
def test_torch_in_parts_is_torch_in_one(shape, points_at_once):
    """Parts of rows, and of points where a row alone is too much; recomputed, with the same derivatives."""
    arguments = double(*problem(shape))
    whole = gradients(TorchEngine(), *arguments, "float32")
    small = TorchEngine(floats_at_once=points_at_once * shape[4] * shape[5])
    for found, wanted in zip(gradients(small, *arguments, "float32"), whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_torch_in_parts_keeps_only_a_part_in_memory(interpolation):
    """What is kept for the backward pass does not grow with the number of parts, but for inputs and outputs."""
    siren, geometry, shifts, targets = double(*problem(((4, 4), (32, 32), interpolation, 8, 5, 64, 1)))

    def kept(engine):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            engine.gradient(siren, geometry, shifts, targets, 0.3, "float32")
        return sum(sizes)

    assert kept(TorchEngine(floats_at_once=1024 * 5 * 64)) < 0.2 * kept(TorchEngine())
