import numpy as np
import pandas as pd
from drawn import render
from matplotlib.collections import LineCollection

from spatial_functa_pipeline.evaluation.score_figure import score_figure
from spatial_functa_pipeline.metrics.comparison import SCORES

DISTANCE = ["frechet_distance", "frechet_distance_low", "frechet_distance_high"]


def score_rows():
    sets = [("samples", "test"), ("noise", "test"), ("train_images", "test"), ("samples", "train"), ("noise", "train")]
    return pd.DataFrame(
        [
            {
                "images": images,
                "against": against,
                **{score: 0.5 + row + column for column, score in enumerate(SCORES)},
                **{f"{score}_low": 0.25 + row + column for column, score in enumerate(SCORES)},
                **{f"{score}_high": 1.0 + row + column for column, score in enumerate(SCORES)},
            }
            for row, (images, against) in enumerate(sets)
        ]
    )


def whiskers(axis):
    """Lower and upper end of each line over a bar, in the order of the table."""
    return [
        tuple(segment[:, 0])
        for one in axis.collections
        if isinstance(one, LineCollection)
        for segment in one.get_segments()
    ]


def test_each_bar_has_its_interval_where_it_is_known():
    table = score_rows()
    table.loc[1, ["kid_low", "kid_high"]] = float("nan")
    distances, kid = score_figure(table).axes[:2]
    np.testing.assert_allclose(whiskers(distances), [(0.25 + row, 1.0 + row) for row in range(5)])
    np.testing.assert_allclose(whiskers(kid)[:2], [(1.25, 2.0), (2.5, 2.5)])  # without one: no length


def test_every_score_has_a_panel_with_a_bar_for_every_comparison():
    table = score_rows()
    figure = score_figure(table)
    assert [axis.get_title() for axis in figure.axes] == [score.replace("_", " ") for score in SCORES]
    for axis, score in zip(figure.axes, SCORES, strict=True):
        assert sorted(bar.get_width() for bar in axis.patches) == sorted(table[score])
        assert len(axis.texts) == len(table)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["samples", "noise", "train images"]
    render(figure)


def test_scores_that_fill_no_line_leave_no_empty_panel(monkeypatch):
    monkeypatch.setattr("spatial_functa_pipeline.evaluation.score_figure.SCORES", SCORES[:4])
    figure = score_figure(score_rows())
    assert [axis.get_title() for axis in figure.axes] == [score.replace("_", " ") for score in SCORES[:4]]
    render(figure)


def test_a_wide_range_of_distances_is_logarithmic_but_not_with_a_zero():
    table = score_rows()
    table.loc[0, DISTANCE] = 1000.0
    assert score_figure(table).axes[0].get_xscale() == "log"
    table.loc[1, DISTANCE] = 0.0
    figure = score_figure(table)
    assert figure.axes[0].get_xscale() == "linear"
    render(figure)


def test_a_score_that_is_not_there_has_no_label():
    table = score_rows()
    table.loc[:2, "kid"] = float("nan")
    figure = score_figure(table)
    assert [text.get_text() for text in figure.axes[1].texts] == ["", "", "", "4.5", "5.5"]
    render(figure)
