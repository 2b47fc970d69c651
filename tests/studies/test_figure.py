"""A study's figure: what stands where, in which colour, with which deviation."""

import numpy as np
import pytest
from measured import study_of, tables

from spatial_functa_pipeline.studies.figure import drawable, study_figure

GAMMA = "diffusion.normalisation.gamma"
KINDS = {"latent_shape": ["4x4x8", "8x8x4"], "interpolation": ["nearest", "linear"]}


def figure_of(study, failing=None, **metrics):
    figure = study_figure(study, *tables(study, failing, **metrics))
    figure.draw_without_rendering()
    return figure


def test_bars_have_a_place_for_each_x_and_a_colour_for_each_by():
    study = study_of(vary=KINDS, figure={"kind": "bars", "x": "latent_shape", "by": "interpolation"})
    figure = figure_of(study, psnr=lambda run: 30 + 4 * (run.variant.parameters["interpolation"] == "linear"))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["4x4x8", "8x8x4"]
    bars = [bar for bar in axis.patches if np.isfinite(bar.get_width())]
    assert sorted((round(bar.get_y() + bar.get_height() / 2, 2), bar.get_width()) for bar in bars) == [
        (-0.2, 30), (0.2, 34), (0.8, 30), (1.2, 34),
    ]  # fmt: skip
    assert len({bar.get_facecolor() for bar in bars}) == 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["nearest", "linear"]
    assert legend.get_title().get_text() == "interpolation"
    assert {text.get_text() for text in axis.texts} == {"30", "34"}


def test_bars_without_an_axis_key_are_named_as_the_variants():
    variants = [{"name": "MLP", "vary": KINDS}, {"name": "PCA"}]
    (axis,) = figure_of(study_of(variants=variants, figure={"kind": "bars"}), psnr=lambda run: 1.0).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "MLP, latent_shape=4x4x8, interpolation=nearest",
        "MLP, latent_shape=4x4x8, interpolation=linear",
        "MLP, latent_shape=8x8x4, interpolation=nearest",
        "MLP, latent_shape=8x8x4, interpolation=linear",
        "PCA",
    ]


@pytest.mark.parametrize(
    ("by", "places", "colours"),
    [("name", ["interpolation=nearest", "interpolation=linear"], ["MLP", "Transformer"]),
     ("interpolation", ["MLP", "Transformer"], ["nearest", "linear"])],
)  # fmt: skip
def test_what_the_colour_says_stands_in_no_name(by, places, colours):
    vary = {"interpolation": ["nearest", "linear"]}
    study = study_of(
        variants=[{"name": name, "vary": vary} for name in ("MLP", "Transformer")], figure={"kind": "bars", "by": by}
    )
    figure = figure_of(study, psnr=lambda run: 1.0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == places
    assert [text.get_text() for text in figure.legends[0].get_texts()] == colours


def test_lines_go_from_left_to_right_with_each_seed_and_the_deviation():
    study = study_of(vary={GAMMA: [5.0, 0.5, 1]}, seeds=[0, 2], figure={"kind": "lines", "x": GAMMA, "log_x": True})
    figure = figure_of(study, psnr=lambda run: run.variant.parameters[GAMMA] + run.seed)
    (axis,) = figure.axes
    line = axis.lines[0]
    assert [*line.get_xdata()] == [0.5, 1, 5.0]
    assert [*line.get_ydata()] == [1.5, 2, 6]
    low, high = axis.collections[0].get_segments()[0][:, 1]  # the error bar at 0.5
    assert (high - low) / 2 == pytest.approx(np.std([0, 2], ddof=1))
    dots = [[*one.get_ydata()] for one in axis.lines if one.get_marker() == "."]
    assert dots == [[0.5, 2.5], [1, 3], [5, 7]]
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.5", "1", "5"]
    assert axis.get_xlabel() == "gamma"
    assert not figure.legends


def test_lines_over_words_have_equal_distances():
    study = study_of(vary=KINDS, figure={"kind": "lines", "x": "latent_shape", "by": "interpolation"})
    (axis,) = figure_of(study, psnr=lambda run: 1.0).axes
    assert [[*line.get_xdata()] for line in axis.lines] == [[0, 1], [0, 1]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4x4x8", "8x8x4"]


BITS = "quantisation.bits"


@pytest.mark.parametrize(
    "parts",
    [{"vary": {BITS: [None, 6, 4, 8, 3]}},
     {"variants": [{"name": "a", "vary": {BITS: [None, 6, 4]}}, {"name": "b", "vary": {BITS: [8, 3]}}]}],
)  # fmt: skip
def test_numbers_beside_a_null_go_from_small_to_large_and_the_null_is_last(parts):
    study = study_of(**parts, figure={"kind": "lines", "x": BITS})
    (axis,) = figure_of(study, psnr=lambda run: run.variant.parameters[BITS] or 32).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["3", "4", "6", "8", "null"]
    assert [*axis.lines[0].get_xdata()] == [0, 1, 2, 3, 4]
    assert [*axis.lines[0].get_ydata()] == [3, 4, 6, 8, 32]


def test_a_panel_for_each_metric_that_was_measured():
    names = ["psnr", "fid", "recall", "never"]
    study = study_of(vary=KINDS, measure=names, figure={"kind": "bars"})
    found = figure_of(study, psnr=lambda run: 1.0, fid=lambda run: 2.0, recall=lambda run: 3.0)
    assert [axis.get_title() for axis in found.axes] == names[:3]
    study = study_of(vary=KINDS, measure=names, figure={"kind": "bars", "metrics": ["fid"]})
    assert [axis.get_title() for axis in figure_of(study, fid=lambda run: 2.0).axes] == ["fid"]


def test_a_variant_without_a_result_leaves_its_place_empty():
    study = study_of(vary=KINDS, figure={"kind": "lines", "x": "latent_shape", "by": "interpolation"})
    failing = {("latent_shape=4x4x8, interpolation=nearest", 0): "failed"}
    (axis,) = figure_of(study, failing, psnr=lambda run: 1.0).axes
    assert [[*line.get_xdata()] for line in axis.lines] == [[1], [0, 1]]


def test_nothing_measured_is_nothing_to_draw():
    study = study_of(vary=KINDS, figure={"kind": "bars"})
    assert drawable(study, tables(study)[1]) == []
    with pytest.raises(ValueError, match="nothing to be drawn"):
        study_figure(study, *tables(study))
    assert drawable(study_of(vary=KINDS), tables(study, psnr=lambda run: 1.0)[1]) == []
