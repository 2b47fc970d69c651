"""The SIREN's two engines: the native one against torch's in float64, and torch's in parts against itself in one."""

import copy
import shutil

import pytest
import torch

from spatial_functa_pipeline.fields.geometry import GEOMETRIES
from spatial_functa_pipeline.fields.native_engine import NativeEngine, has_bf16_products
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
    return siren, copy.deepcopy(geometry).double(), shifts.double().requires_grad_(), targets.double()


def single(siren, geometry, shifts, targets):
    siren = Siren(*(tensor.clone().requires_grad_() for tensor in siren))
    return siren, geometry, shifts.clone().requires_grad_(), targets


def gradients(engine, siren, geometry, shifts, targets, precision):
    """Values, shift gradient, and derivatives of both for everything, along fixed directions."""
    generator = torch.Generator().manual_seed(1)
    values = engine.values(siren, geometry, shifts)
    gradient = engine.gradient(siren, geometry, shifts, targets, 0.3, precision)
    wanted = [shifts, *siren]
    results = [values, gradient]
    for output in (values, gradient):
        direction = torch.randn(output.shape, generator=generator).to(output)
        derivatives = torch.autograd.grad((output * direction).sum(), wanted, retain_graph=True, allow_unused=True)
        results += [
            torch.zeros_like(to) if found is None else found for to, found in zip(wanted, derivatives, strict=True)
        ]
    return results


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
    assert all(1e-4 < error < 0.05 for error in (errors[1], *errors[7:10]))
    assert errors[1] > 100 * small[1]
    assert torch.equal(half[0], whole[0])  # the final pass is in float32


def test_native_results_do_not_depend_on_the_number_of_threads():
    """Rows are independent; what sums over rows may be rounded otherwise."""
    arguments = problem(((3, 11), (12, 44), "nearest", 1, 4, 64, 1))
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


def test_native_refuses_what_it_cannot_do():
    siren, geometry, shifts, _ = problem(((2, 2), (4, 4), "nearest", 1, 3, 24, 1))
    with pytest.raises(ValueError, match="multiples of 32"):
        NativeEngine().values(siren, geometry, shifts)
    siren, geometry, shifts, _ = double(*problem(((2, 2), (4, 4), "nearest", 1, 3, 32, 1)))
    with pytest.raises(ValueError, match="float32"):
        NativeEngine().values(siren, geometry, shifts)


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
