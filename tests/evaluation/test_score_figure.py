import pandas as pd
from drawn import render

from spatial_functa_pipeline.evaluation.score_figure import score_figure
from spatial_functa_pipeline.metrics.comparison import SCORES


def score_rows():
    sets = [("samples", "test"), ("noise", "test"), ("train_images", "test"), ("samples", "train"), ("noise", "train")]
    return pd.DataFrame(
        [
            {"images": images, "against": against, **{score: 0.5 + row + column for column, score in enumerate(SCORES)}}
            for row, (images, against) in enumerate(sets)
        ]
    )


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
    table.loc[0, "frechet_distance"] = 1000.0
    assert score_figure(table).axes[0].get_xscale() == "log"
    table.loc[1, "frechet_distance"] = 0.0
    figure = score_figure(table)
    assert figure.axes[0].get_xscale() == "linear"
    render(figure)


def test_a_score_that_is_not_there_has_no_label():
    table = score_rows()
    table.loc[:2, "kid"] = float("nan")
    figure = score_figure(table)
    assert [text.get_text() for text in figure.axes[1].texts] == ["", "", "", "4.5", "5.5"]
    render(figure)
