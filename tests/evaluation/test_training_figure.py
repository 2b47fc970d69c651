import numpy as np
import pandas as pd
import pytest
from drawn import render

from spatial_functa_pipeline.evaluation.training_figure import training_curves


def test_training_curves_leave_out_what_was_not_measured():
    field = pd.DataFrame(
        {
            "step": [0, 10, 20, 30],
            "loss": [1.0, 0.1, 0.01, 0.001],
            "validation_psnr": [np.nan, 20.0, np.nan, 25.0],
            "never": [np.nan] * 4,
        }
    )
    figure = training_curves({"meta_learning": field, "diffusion": field[["step", "loss"]]})
    meta_learning, diffusion = figure.subfigs
    assert [part.get_suptitle() for part in figure.subfigs] == ["meta learning", "diffusion"]
    assert [axis.get_title() for axis in meta_learning.axes] == ["loss", "validation psnr"]
    assert [axis.get_title() for axis in diffusion.axes if axis.axison] == ["loss"]
    loss, psnr = meta_learning.axes
    np.testing.assert_array_equal(psnr.lines[0].get_xydata(), [[10, 20], [30, 25]])
    assert (loss.get_yscale(), psnr.get_yscale()) == ("log", "linear")
    render(figure)


def test_many_metrics_wrap_into_rows():
    history = pd.DataFrame({"step": [1, 2], **{f"metric_{i}": [1.0, 2.0] for i in range(6)}})
    (block,) = training_curves({"classification": history}).subfigs
    titles = [axis.get_title() for axis in block.axes if axis.axison]
    assert titles == [f"metric {i}" for i in range(6)]
    assert len(block.axes) == 8


@pytest.mark.parametrize("histories", [{}, {"field": pd.DataFrame({"step": [1], "loss": [np.nan]})}])
def test_nothing_to_draw_is_an_error(histories):
    with pytest.raises(ValueError, match="no history has a value"):
        training_curves(histories)


def test_a_history_without_steps_is_an_error():
    with pytest.raises(ValueError, match="history of field has no column 'step'"):
        training_curves({"field": pd.DataFrame({"loss": [1.0]})})
