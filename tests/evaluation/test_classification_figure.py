import io

import numpy as np
import pytest

from spatial_functa_pipeline.evaluation.classification_figure import confusion_figure


def test_cells_are_percentages_of_the_true_class():
    figure = confusion_figure(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["shirt", "coat", "bag"], "title")
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), [[75, 25, 0], [0, 100, 0], [0, 0, 0]])
    assert {text.get_position(): text.get_text() for text in axis.texts} == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["shirt", "coat", "bag"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("predicted", "true", "title")


@pytest.mark.parametrize(("count", "names", "numbers"), [(20, True, True), (50, True, False), (200, False, False)])
def test_what_would_be_too_small_to_read_is_left_out(count, names, numbers):
    figure = confusion_figure(np.eye(count, dtype=int), [f"class {k}" for k in range(count)], "")
    axis = figure.axes[0]
    assert bool(axis.texts) is numbers
    assert ("class 7" in [label.get_text() for label in axis.get_yticklabels()]) is names
    figure.savefig(io.BytesIO(), dpi=40)


def test_a_share_below_one_percent_is_not_rounded_to_nothing():
    figure = confusion_figure(np.array([[398, 2], [0, 1]]), ["shirt", "coat"], "")
    assert [text.get_text() for text in figure.axes[0].texts] == ["100", "<1", "100"]
