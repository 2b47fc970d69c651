"""Decoding between the pixels: cells that are continued beyond their borders, and blended there."""

from dataclasses import replace
from itertools import product
from math import prod

import pytest
import torch
from test_field import make, with_data

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.geometry import OverlappingGeometry, cosine_interpolation, pixel_centres
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine

# grid, trained resolution, decoded resolution, overlap
SHAPES = [
    pytest.param((4,), (16,), (32,), 0.5, id="1d"),
    pytest.param((4,), (4,), (20,), 0.5, id="one-pixel-cells"),
    pytest.param((2, 3), (8, 12), (16, 36), 0.5, id="rectangular"),
    pytest.param((2, 2), (8, 8), (24, 24), 0.5, id="odd"),
    pytest.param((2, 2), (8, 8), (64, 64), 0.3, id="narrow"),
    pytest.param((2, 2), (8, 8), (12, 4), 0.5, id="coarser"),
    pytest.param((1, 1), (8, 8), (16, 16), 0.5, id="vector"),
    pytest.param((2, 1, 3), (4, 2, 6), (8, 8, 24), 0.5, id="3d"),
]


def overlapping(grid, trained, resolution, overlap):
    return OverlappingGeometry(grid, resolution, trained, overlap).double()


def corners(grid):
    """Of the cells, in units of cells, `(S, D)`."""
    return torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid)).double()


@pytest.mark.parametrize(("grid", "trained", "resolution", "overlap"), SHAPES)
def test_cells_that_continue_one_picture_give_that_picture(grid, trained, resolution, overlap):
    """Each point takes a mean of cells, at the place where it lies in each of them: so the points' own places come out."""
    geometry = overlapping(grid, trained, resolution, overlap)
    places = (corners(grid)[:, None] + geometry.coordinates) / torch.tensor(grid)
    found = geometry.blended(places, geometry.coordinates)[0]
    torch.testing.assert_close(found, pixel_centres(resolution).reshape(found.shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("grid", "trained", "resolution", "overlap"), SHAPES)
def test_a_cell_falls_linearly_across_its_border(grid, trained, resolution, overlap):
    geometry = overlapping(grid, trained, resolution, overlap)
    own = torch.eye(prod(grid), dtype=torch.float64)[:, None].expand(-1, len(geometry.coordinates), -1)
    weights = geometry.blended(own, geometry.coordinates)[0].flatten(end_dim=-2)  # (X, S): each cell's at each point
    for point, found in zip(pixel_centres(resolution), weights, strict=True):
        torch.testing.assert_close(found, cell_weights(point, grid, trained, overlap), rtol=0, atol=1e-6)


def cell_weights(point, grid, trained, overlap):
    """`(S,)`, from the definition, at a point of [0, 1]^D."""
    by_axis = []
    for place, cells, pixels in zip(point.tolist(), grid, trained, strict=True):
        weights = torch.zeros(cells, dtype=torch.float64)
        for cell in range(cells):
            left, right = (place * cells - border for border in (cell, cell + 1))  # in cells, beyond the two borders
            rise, fall = (
                min(1, max(0, 0.5 + sign * beyond * pixels / cells / (2 * overlap)))
                for sign, beyond in ((1, left), (-1, right))
            )
            weights[cell] = (rise if cell else 1) * (fall if cell < cells - 1 else 1)
        by_axis.append(weights)
    return torch.stack([torch.stack(chosen).prod() for chosen in product(*by_axis)])


FIELDS = [
    pytest.param(dict(grid=(4,), resolution=(16,)), id="1d"),
    pytest.param(dict(grid=(2, 3), resolution=(4, 6)), id="rectangular"),
    pytest.param(dict(grid=(2, 2), resolution=(8, 8), kernel_size=3), id="3x3"),
    pytest.param(dict(grid=(2, 2), resolution=(8, 8), initialisation="data"), id="data"),
    pytest.param(dict(grid=(1, 1), resolution=(4, 4)), id="vector"),
    pytest.param(dict(grid=(2, 1, 2), resolution=(4, 2, 4)), id="3d"),
]


def field_and_latents(overlap=0.5, **arguments):
    field = make(**arguments, overlap=overlap)
    if field.linear is not None:
        with_data(field)
        with torch.no_grad():
            field.layers[-1].weight.normal_(std=0.1)
    return field, torch.randn(2, *field.spec.latent_shape.shape, dtype=torch.float64)


@pytest.mark.parametrize("arguments", FIELDS)
@pytest.mark.parametrize("factor", [2, 3])
def test_a_finer_image_is_the_weighted_mean_of_the_cells(arguments, factor):
    field, latents = field_and_latents(**arguments)
    grid, trained = field.spec.latent_shape.grid, field.spec.resolution
    resolution = tuple(factor * side for side in trained)
    shifts = field._shifts(field.modulate(latents))
    expected = []
    for point in pixel_centres(resolution):
        places = point * torch.tensor(grid) - corners(grid)  # (S, D)
        value = field.engine.values(field._siren(places), field.geometry, shifts)  # (B·S, S, h)
        value = value.unflatten(0, (2, -1)).diagonal(dim1=1, dim2=2).movedim(-1, 1)  # each cell at its own place
        if field.linear is not None:
            cells = field.geometry.to_cells(field._linear_part(latents, field.geometry)).flatten(1, -2)
            cell = [n // s for n, s in zip(trained, grid, strict=True)]
            series = cosine_interpolation(places, cell)
            value = value + torch.einsum("sp,bsph->bsh", series, cells.unflatten(-1, (-1, field.spec.channels)))
        expected.append(torch.einsum("s,bsh->bh", cell_weights(point, grid, trained, 0.5), value))
    found = field.decode(latents, resolution)
    torch.testing.assert_close(found, torch.stack(expected, dim=1).reshape(found.shape), rtol=0, atol=1e-5)


@pytest.mark.parametrize("arguments", FIELDS)
def test_the_trained_pixels_are_as_without_an_overlap(arguments):
    """Of three times the resolution every third pixel has the same centre."""
    field, latents = field_and_latents(**arguments)
    fine = field.decode(latents, tuple(3 * side for side in field.spec.resolution))
    centres = (slice(None), *(slice(1, None, 3) for _ in field.spec.resolution))
    torch.testing.assert_close(fine[centres], field.decode(latents), rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_borders_have_no_jump(overlap):
    """The step across a border gets as small as the pixels; without an overlap it stays."""
    steps = {}
    for reach, factor in product((0.0, overlap), (16, 64)):
        field, latents = field_and_latents(reach, grid=(2, 2), resolution=(8, 8))
        side = 8 * factor
        fine = field.decode(latents, (side, side))
        steps[reach, factor] = (fine[:, side // 2] - fine[:, side // 2 - 1]).abs().max()
    assert steps[overlap, 64] < 0.3 * steps[overlap, 16]
    assert steps[0.0, 64] > 0.8 * steps[0.0, 16]


@pytest.mark.parametrize("arguments", FIELDS)
def test_what_is_trained_beside_the_pixels_is_what_a_finer_image_shows(arguments):
    """A quarter of a pixel beside the pixels' centres lie those of twice the resolution; the sides are one by one."""
    field, _ = field_and_latents(**arguments)
    images = torch.rand(2, *field.spec.resolution, field.spec.channels, dtype=torch.float64)
    latents = field.encode(images)
    fine = field.decode(latents, tuple(2 * side for side in field.spec.resolution))
    for signs in product((-1, 1), repeat=len(field.spec.resolution)):
        beside, _ = field(images, offset=torch.tensor(signs, dtype=torch.float64) / 4)
        chosen = fine[(slice(None), *(slice((1 + sign) // 2, None, 2) for sign in signs))]
        torch.testing.assert_close(beside, chosen, rtol=0, atol=1e-6)


def test_the_loss_beside_the_pixels_reaches_all_parameters_through_torch_compile():
    """As one graph: points that are moved change no shapes."""
    field, _ = field_and_latents(grid=(2, 2), resolution=(8, 8))
    images = torch.rand(2, 8, 8, 2, dtype=torch.float64)
    compiled = torch.compile(field, fullgraph=True, backend="eager", dynamic=False)
    for offset in torch.tensor([[0.3, -0.4], [-0.2, 0.5]], dtype=torch.float64):
        beside, _ = compiled(images, 2, offset)
        torch.testing.assert_close(beside, field(images, 2, offset)[0])
    gradients = torch.autograd.grad((beside - images).square().mean(), list(field.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_only_points_near_borders_are_computed_more_than_once():
    geometry = overlapping((8, 8), (32, 32), (128, 128), 0.5)
    assert len(geometry.coordinates) == (16 + 2 * 2) ** 2
    assert len(overlapping((8, 8), (32, 32), (32, 32), 0.5).coordinates) == 16


def test_inside_of_cells_and_at_the_edge_an_overlap_changes_nothing():
    field, latents = field_and_latents(0.5, grid=(2, 2), resolution=(8, 8))
    blended = field.decode(latents, (16, 16))
    field.spec = replace(field.spec, overlap=0.0)
    changed = ((blended - field.decode(latents, (16, 16))).abs() > 1e-6).any(dim=-1).any(dim=0)
    near = torch.zeros(16, dtype=torch.bool)
    near[7:9] = True
    assert torch.equal(changed, near[:, None] | near[None])


def test_the_native_engine_decodes_alike():
    torch.manual_seed(0)
    field = SpatialField(FieldSpec(LatentShape((3, 2), 4), (12, 8), 3, "nearest", 32, 4, 8.0, overlap=0.5))
    latents = torch.randn(2, 3, 2, 4)
    plain = field.decode(latents, (48, 32))
    field.engine = NativeEngine()
    torch.testing.assert_close(field.decode(latents, (48, 32)), plain, rtol=0, atol=1e-5)


def test_bits_have_no_overlap():
    field = make(grid=(2, 2), resolution=(8, 8), interpolation="linear")
    with pytest.raises(ValueError, match="overlap"):
        SpatialField(replace(field.spec, overlap=0.5))
