"""The benchmark of the scores' intervals, with few small sets."""

from intervals import coverage

from spatial_functa_pipeline.metrics.comparison import SCORES


def test_every_score_has_its_row():
    table = coverage(images=30, width=3, scale=0.9, repetitions=3, resamples=4, seed=0)
    assert tuple(table["score"]) == SCORES
    assert table["covered"].between(0, 1).all()
    assert (table[["deviation", "estimated"]] >= 0).all(axis=None)
    assert table.loc[0, "estimated"] > 0
