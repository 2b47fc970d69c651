import numpy as np
import pytest
import torch
from drawn import pictures, render
from evaluated import field, latents

from spatial_functa_pipeline.evaluation.drawing import MAX_ROWS
from spatial_functa_pipeline.evaluation.sample_figures import draw_samples, resolution_figure, sample_figure


def test_samples_stand_in_the_row_of_their_class():
    labels = torch.tensor([2, 0, 2, 0, 2])
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 4, 4, 3)
    figure = sample_figure(images, labels, ["shirt", "coat", "bag"], per_class=3)
    shown = [None if picture is None else picture.mean() for picture in pictures(figure)]
    assert shown[2] is None
    np.testing.assert_allclose(shown[:2] + shown[3:], [0.25, 0.75, 0, 0.5, 1], rtol=1e-6)
    assert [figure.axes[row].get_ylabel() for row in (0, 3)] == ["shirt", "bag"]
    render(figure)


def test_a_row_has_no_more_than_per_class_samples():
    figure = sample_figure(torch.rand(30, 4, 4, 1), torch.arange(30) % 2, ["a", "b"], per_class=5)
    assert len(figure.axes) == 10


def test_many_classes_do_not_explode():
    names = [f"class {i}" for i in range(1000)]
    figure = sample_figure(torch.rand(1000, 2, 2, 1), torch.arange(1000), names)
    assert len(figure.axes) == MAX_ROWS
    assert figure.axes[0].get_ylabel() == "class 0"
    assert figure.axes[-1].get_ylabel() == "class 999"
    assert figure.get_supxlabel() == f"{MAX_ROWS} of 1,000 classes"


def test_unconditional_samples_fill_the_rows():
    figure = sample_figure(torch.rand(10, 4, 4, 1), None, [], per_class=4)
    assert [picture is not None for picture in pictures(figure)] == [True] * 10 + [False] * 2
    render(figure)


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [0]])
def test_labels_must_fit_images_and_classes(labels):
    with pytest.raises(ValueError, match=r"0\.\.1 for each of 2 images"):
        sample_figure(torch.rand(2, 4, 4, 1), torch.tensor(labels), ["a", "b"])


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="no samples"):
        sample_figure(torch.rand(0, 4, 4, 1), torch.zeros(0, dtype=torch.int64), ["a"])


def test_resolutions_stand_above_each_other_at_their_own_pixels():
    coarse, fine = torch.rand(3, 8, 8, 1), torch.rand(3, 32, 32, 1)
    figure = resolution_figure([coarse, fine])
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["8×8", "32×32"]
    shown = [axis.get_images()[0].get_array().shape for axis in figure.axes]
    assert shown == [(8, 8)] * 3 + [(32, 32)] * 3
    np.testing.assert_allclose(figure.axes[3].get_images()[0].get_array(), fine[0, ..., 0])
    figure.draw_without_rendering()
    sizes = {round(axis.get_window_extent().width) for axis in figure.axes}
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(ValueError, match=r"as many images at each resolution, got \[3, 2\]"):
        resolution_figure([coarse, fine[:2]])


def test_samples_are_drawn_by_class_and_larger(make_functaset):
    """Labels of the made functaset count up to its length."""
    functaset = make_functaset(latents(4))
    by_class, enlarged = draw_samples(functaset, field(), ("a", "b", "c", "d"), 2)
    assert [axis.get_ylabel() for axis in by_class.axes] == ["a", "b", "c", "d"]
    assert [picture.shape for picture in pictures(enlarged)] == [(8, 8)] * 2 + [(32, 32)] * 2
