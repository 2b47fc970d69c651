import numpy as np
import pandas as pd
import pytest
import torch
from drawn import render

from spatial_functa_pipeline.evaluation.memorisation_figures import memorisation_figure, neighbour_figure
from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS
from spatial_functa_pipeline.metrics.neighbours import Neighbours


def test_neighbours_stand_below_their_image_the_nearest_first():
    images = torch.tensor([0.0, 0.1]).view(2, 1, 1, 1).expand(2, 4, 4, 1)
    nearest = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]]).view(2, 3, 1, 1, 1).expand(2, 3, 4, 4, 1)
    found = Neighbours(np.zeros((2, 3), int), np.array([[0.01, 0.02, 0.03], [0.1234, 0.2, 0.3]]))
    figure = neighbour_figure({"first": images, "closest": images + 0.2}, {"first": nearest, "closest": nearest}, {
        "first": found, "closest": found,
    })  # fmt: skip
    shown = [axis.images[0].get_array().mean() for axis in figure.axes]
    columns = [0.0, 0.1, 0.2, 0.5, 0.3, 0.6, 0.4, 0.7]
    np.testing.assert_allclose(shown, [*columns, 0.2, 0.3, *columns[2:]], rtol=1e-6, atol=1e-7)
    assert [axis.get_title() for axis in figure.axes[2:4]] == ["0.010", "0.123"]
    render(figure)


@pytest.mark.parametrize("classes", [["a", "b"], []])
def test_counts_of_the_classes_stand_beside_their_expectation(classes):
    groups = [EVERY_CLASS, *classes]
    rows = [
        {"images": images, "class": group, "distinct": 10 * i + j, "expected": 100 + j, "expected_std": 3}
        for i, images in enumerate(("samples", "test_images"))
        for j, group in enumerate(groups)
    ]
    distances = {"samples": np.linspace(0, 0.2, 50), "test_images": np.linspace(0.1, 0.3, 50)}
    figure = memorisation_figure(distances, pd.DataFrame(rows))
    left, right = figure.axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["samples", "test images"]
    wanted = classes or [EVERY_CLASS]
    assert [label.get_text() for label in right.get_yticklabels()] == wanted
    assert [bar.get_width() for bar in right.patches] == [groups.index(group) for group in wanted]
    render(figure)


def test_distances_of_nothing_but_copies_can_be_drawn():
    table = pd.DataFrame([{"images": "samples", "class": EVERY_CLASS, "distinct": 1, "expected": 2, "expected_std": 1}])
    render(memorisation_figure({"samples": np.zeros(5)}, table))
