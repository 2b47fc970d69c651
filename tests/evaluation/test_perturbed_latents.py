"""Perturbations of decoders whose answers are known, and of fields of any shape."""

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import pictures, render

from spatial_functa_pipeline.config.evaluation import PerturbationConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.evaluation import perturbation_figures as figures
from spatial_functa_pipeline.evaluation.perturbation import (
    RANGE,
    Probe,
    analyse_perturbations,
    measure_perturbations,
    perturbation_metrics,
)
from spatial_functa_pipeline.fields.cells import join_cells
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.rotation import random_orthogonal
from spatial_functa_pipeline.functasets.statistics import compute_statistics

STD = torch.tensor([0.5, 1.0, 0.1])


class LinearDecoder:
    """Every cell of a picture is ½ and the sum of c patterns, `(c, P, channels)`, in proportion to the latent."""

    def __init__(self, grid, resolution, channels=1, components=3, patterns=None):
        self.resolution = resolution
        size = int(np.prod(resolution) / np.prod(grid))
        generator = torch.Generator().manual_seed(1)
        self.patterns = torch.randn(components, size, channels, generator=generator) if patterns is None else patterns

    def __call__(self, latents):
        return join_cells(0.5 + torch.einsum("b...c,cph->b...ph", latents, self.patterns), self.resolution)


def probe_of(decode, grid, count=4, channels=3):
    latents = torch.randn(count, *grid, channels, generator=torch.Generator().manual_seed(2))
    return Probe(decode, latents, LatentShape(grid, channels))


SHAPES = [((4,), (16,), 2), ((2, 4), (8, 8), 1), ((2, 2), (8, 4), 3), ((2, 2, 2), (4, 4, 4), 1)]


@pytest.mark.parametrize(("grid", "resolution", "channels"), SHAPES)
def test_a_linear_decoder_is_seen_through(grid, resolution, channels):
    decode = LinearDecoder(grid, resolution, channels)
    found = measure_perturbations(probe_of(decode, grid), STD, 2.0)
    torch.testing.assert_close(found.steps, 2 * STD)
    expected = 2 * STD[:, None, None] * decode.patterns
    torch.testing.assert_close(found.patterns.flatten(1).float(), expected.flatten(1), atol=1e-5, rtol=1e-4)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(found.correlation, ones, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.by_distance[:, 0], ones, atol=1e-9, rtol=0)  # the cells are disjoint
    assert found.r2.min() > 1 - 1e-6
    rms = decode.patterns.flatten(1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(found.slope.float(), rms, rtol=1e-4, atol=0)
    cells = np.prod(grid)
    torch.testing.assert_close(found.mae.float(), expected.abs().mean(dim=(1, 2)) / cells, rtol=1e-4, atol=1e-7)
    area = expected.square().sum(dim=2)
    torch.testing.assert_close(
        found.area.float(), area.sum(1).square() / area.square().sum(1) / (cells * area.shape[1]), rtol=1e-4, atol=0
    )
    assert found.energy.sum().item() == pytest.approx(1)


def test_strengths_are_symmetric_and_reach_twice_the_largest_deviation():
    found = measure_perturbations(probe_of(LinearDecoder((2, 2), (4, 4)), (2, 2)), STD, 1.0)
    torch.testing.assert_close(found.strengths, -found.strengths.flip(0))
    assert found.strengths.max().item() == RANGE * 1.0
    torch.testing.assert_close(found.errors, found.errors.flip(1), rtol=1e-4, atol=0)


def test_energy_that_leaves_the_cell_is_found_where_it_went():
    """Half of each amplitude is repeated a cell further on, ⅕ of it two cells further on."""
    cells = LinearDecoder((8,), (32,))

    def decode(latents):
        alone = cells(latents) - 0.5
        return alone + 0.5 * alone.roll(4, dims=1) + 0.2 * alone.roll(8, dims=1)

    found = measure_perturbations(probe_of(decode, (8,)), STD, 1.0)
    whole = 1 + 0.25 + 0.04
    expected = torch.tensor([1, 0.25, 0.04, 0, 0], dtype=torch.float64) / whole
    torch.testing.assert_close(found.by_distance, expected.expand(3, -1), atol=1e-6, rtol=0)
    metrics = perturbation_metrics(found, "here")
    assert metrics["perturbation_energy_inside_cell"] == pytest.approx(1 / whole)


def test_a_pattern_that_depends_on_the_cell_is_not_stable():
    signs = torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    alternating = LinearDecoder((8,), (32,))
    found = measure_perturbations(probe_of(lambda latents: alternating(latents * signs), (8,)), STD, 1.0)
    assert found.correlation.abs().min() == pytest.approx(1)  # the rest of 32 cells is the cell's opposite
    assert found.correlation.max() < 0


def test_an_error_that_grows_with_the_square_is_less_linear():
    linear = LinearDecoder((2, 2), (4, 4))
    probe = Probe(lambda latents: linear(latents.square()), torch.zeros(2, 2, 2, 3), LatentShape((2, 2), 3))
    found = measure_perturbations(probe, STD, 1.0)
    sizes = torch.tensor([0.25, 0.5, 0.75, 1.0])
    errors = sizes.square()
    slope = (sizes * errors).sum() / sizes.square().sum()
    r2 = 1 - (errors - slope * sizes).square().sum() / (errors - errors.mean()).square().sum()
    torch.testing.assert_close(found.r2.float(), r2.expand(3), rtol=1e-4, atol=0)
    assert perturbation_metrics(found, "here")["perturbation_linear_r2"] == pytest.approx(r2.item(), rel=1e-4)


def test_a_channel_without_effect_counts_for_nothing():
    patterns = torch.ones(3, 4, 1)
    patterns[1] = 0
    found = measure_perturbations(probe_of(LinearDecoder((2, 2), (4, 4), patterns=patterns), (2, 2)), STD, 1.0)
    assert found.correlation.isnan().tolist() == found.r2.isnan().tolist() == [False, True, False]
    metrics = perturbation_metrics(found, "here")
    assert metrics["perturbation_area"] == pytest.approx(0.25)
    assert metrics["perturbation_pattern_correlation"] == pytest.approx(1)
    render(figures.pattern_figure(found.patterns, 1.0))
    render(figures.strength_figure(found.strengths, found.errors, found.slope, found.r2))


def test_where_nothing_has_an_effect_there_are_no_metrics():
    dead = LinearDecoder((2, 2), (4, 4), patterns=torch.zeros(3, 4, 1))
    assert perturbation_metrics(measure_perturbations(probe_of(dead, (2, 2)), STD, 1.0), "here") == {"details": {}}


def test_a_vector_has_no_share_inside_its_cell_and_the_area_tells_that_it_is_global():
    found = measure_perturbations(
        probe_of(LinearDecoder((1, 1), (8, 8), patterns=torch.ones(3, 64, 1)), (1, 1)), STD, 1.0
    )
    metrics = perturbation_metrics(found, "here")
    assert set(metrics) == {
        *("perturbation_area", "perturbation_linear_r2", "perturbation_pattern_correlation", "details")
    }
    assert metrics["perturbation_area"] == pytest.approx(1)
    assert found.changed.tolist() == [1.0] * 3


def field(latent_shape, resolution, channels, interpolation="nearest"):
    config = FieldConfig(
        latent_shape=latent_shape,
        interpolation=interpolation,
        resolution=resolution,
        channels=channels,
        width=8,
        depth=3,
        kernel_size=3 if interpolation == "linear" else 1,
    )
    torch.manual_seed(0)
    return SpatialField(config.spec).eval()


FIELDS = [
    ("2x2x3", (8, 8), 1, "nearest"),
    ("2x2x3", (8, 8), 3, "linear"),
    ("1x1x6", (8, 8), 1, "nearest"),
    ("4x3", (16,), 1, "linear"),
    ("1x3", (16,), 2, "nearest"),
    ("2x2x2x3", (4, 4, 4), 1, "nearest"),
    ("1x1x2", (4, 4), 2, "nearest"),
]


@pytest.mark.parametrize(("latent_shape", "resolution", "channels", "interpolation"), FIELDS)
def test_a_field_of_any_shape_has_its_numbers_and_figures(
    make_functaset, latent_shape, resolution, channels, interpolation
):
    decoder = field(latent_shape, resolution, channels, interpolation)
    shape = decoder.spec.latent_shape
    functaset = make_functaset(np.random.default_rng(0).normal(size=(9, *shape.shape)).astype(np.float32))
    metrics, table, profile, *drawn = analyse_perturbations(
        functaset, decoder, compute_statistics(functaset), PerturbationConfig(images=3), 2, seed=5
    )
    names = {name for name in metrics if name != "details"}
    assert ("perturbation_energy_inside_cell" in names) == (shape.cells > 1)
    assert set(metrics["details"]) == names
    assert all(np.isfinite(metrics[name]) and f"3 test images, seed 5, {shape.channels} channels" in text
               for name, text in metrics["details"].items())  # fmt: skip
    assert len(table) == shape.channels
    assert isinstance(profile, pd.DataFrame)
    assert profile["cells"].sum() == shape.cells
    assert profile["energy_share"].sum() == pytest.approx(1)
    if shape.cells > 1 and interpolation == "nearest":
        assert metrics["perturbation_energy_inside_cell"] == pytest.approx(1)
    assert len(drawn) == 5
    for figure in drawn:
        render(figure)
    can_be_drawn = len(resolution) == 1 or (len(resolution) == 2 and channels in (1, 3))
    for figure in drawn[:3]:
        assert bool(figure.axes) == can_be_drawn
        assert can_be_drawn or "no pictures of" in figure.texts[0].get_text()


def test_of_several_scales_the_finest_is_perturbed(make_functaset):
    decoder = field("1x1x4+2x2x3", (8, 8), 1)
    shape = decoder.spec.latent_shape
    functaset = make_functaset(np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32), latent_shape=shape)
    statistics = compute_statistics(functaset)
    metrics, table, profile, *drawn = analyse_perturbations(
        functaset, decoder, statistics, PerturbationConfig(images=3), 2, seed=5
    )
    assert "3 channels of 2x2x3 by" in metrics["details"]["perturbation_area"]
    assert metrics["perturbation_energy_inside_cell"] == pytest.approx(1)  # a coarser number would change all cells
    np.testing.assert_allclose(table["perturbed_by"], statistics.moments["vector"].std[4:], rtol=1e-6)
    assert profile["cells"].sum() == 4
    for figure in drawn:
        render(figure)


def test_single_dimensions_are_those_of_largest_median_and_smallest_effect():
    """Of Fig. 4: the rows are named, and the perturbed pictures differ in the middle cell alone."""
    pattern = torch.ones(4, 1)
    decode = LinearDecoder((2, 2), (4, 4), patterns=torch.stack([0.1 * pattern, 0.4 * pattern, 0.2 * pattern]))
    probe = probe_of(decode, (2, 2), count=2)
    changes = {"largest": probe.differences(1, 0.5, probe.middle), "smallest": probe.differences(0, 0.5, probe.middle)}
    figure = figures.dimension_figure(probe.pictures, changes)
    rows = [axis.get_ylabel() for axis in figure.axes[::2]]
    assert rows == [
        "unperturbed", "largest", "absolute error,\n0 … 0.2", "smallest", "absolute error,\n0 … 0.05",
    ]  # fmt: skip
    drawn = pictures(figure)
    np.testing.assert_allclose(drawn[4], np.pad(np.ones((2, 2)), ((2, 0), (2, 0))), atol=1e-5)
    render(figure)


def test_one_channel_in_all_cells_shows_the_repeating_pattern():
    patterns = torch.tensor([1.0, -1.0, 0.0, 0.5]).reshape(1, 4, 1)
    probe = probe_of(LinearDecoder((4, 4), (8, 8), patterns=patterns), (4, 4), count=1, channels=1)
    figure = figures.channel_figure(probe.pictures, probe.differences(0, 0.1), (4, 4), "channel 0 + 0.1")
    difference, enlarged = pictures(figure)[2], pictures(figure)[5]
    np.testing.assert_allclose(difference, np.tile([[1, -1], [0, 0.5]], (4, 4)), atol=1e-5)
    assert enlarged.shape == (6, 6)
    assert figure.axes[1].get_title() == "channel 0 + 0.1"
    render(figure)


@pytest.mark.parametrize("channels", [1, 8, 130])
def test_the_atlas_has_every_pattern_on_a_symmetric_scale(channels):
    patterns = torch.randn(channels, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    (axis,) = figures.pattern_figure(patterns, 1.0).axes
    assert len(axis.images) == channels
    for image, pattern in zip(axis.images, patterns[..., 0], strict=True):
        np.testing.assert_allclose(image.get_array(), pattern / pattern.abs().max(), rtol=1e-5)
        assert image.get_clim() == (-1, 1)


def test_of_very_many_channels_some_are_drawn(monkeypatch):
    monkeypatch.setattr(figures, "_MOST_PANELS", 4)
    ones = torch.ones(130)
    for figure in (
        figures.strength_figure(torch.tensor([-1.0, 1.0]), torch.ones(130, 2), ones, ones),
        figures.pattern_figure(torch.ones(130, 8, 1), 1.0),  # of one dimension: lines
    ):
        assert len(figure.axes) == 4
        assert [axis.get_title().split(":")[0] for axis in figure.axes] == ["0", "43", "86", "129"]
        assert figure.get_supxlabel().endswith("(4 of 130 channels)")


def test_rotated_latents_make_the_same_pictures_and_lose_their_locality():
    probe = probe_of(LinearDecoder((2, 2), (4, 4)), (2, 2))
    turned = probe.turned(random_orthogonal(12, 0))
    torch.testing.assert_close(turned.pictures, probe.pictures, atol=1e-5, rtol=0)
    inside, of_turned = (measure_perturbations(each, STD, 1.0).by_distance[:, 0] for each in (probe, turned))
    assert inside.min() > 0.999
    assert of_turned.max() < 0.9
    within = measure_perturbations(probe.turned(random_orthogonal(3, 0)), STD, 1.0)
    assert within.by_distance[:, 0].min() > 0.999
    assert within.r2.min() > 0.999


def test_of_rotated_statistics_the_rotated_channels_are_perturbed(make_functaset):
    decoder = field("2x2x3", (8, 8), 1)
    functaset = make_functaset(np.random.default_rng(0).normal(size=(9, 2, 2, 3)).astype(np.float32))
    shares = {}
    for kind in (None, "within_cells", "whole"):
        statistics = compute_statistics(functaset, rotation=kind)
        metrics, *_ = analyse_perturbations(functaset, decoder, statistics, PerturbationConfig(images=2), 1, seed=0)
        assert ("3 rotated channels" in metrics["details"]["perturbation_area"]) == (kind is not None)
        shares[kind] = metrics["perturbation_energy_inside_cell"]
    assert shares[None] == shares["within_cells"] == pytest.approx(1)
    assert shares["whole"] < 0.9
