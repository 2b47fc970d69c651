"""Figure of the classification."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_NUMBERED = 20
"""Up to so many classes each cell has its number; more would be too small to read."""
_NAMED = 50


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix `(K, K)` of counts, drawn as percentages of each true class.

    Names of the classes are written for at most 50 of them, numbers in the cells for at most 20; a class without images
    is a row of zeros.
    """
    count = len(classes)
    share = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(2.5 + 0.55 * count, 12)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    figure.colorbar(image, ax=axis, label="% of the true class", shrink=0.8)
    if count <= _NAMED:
        axis.set_xticks(range(count), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axis.set_yticks(range(count), classes, fontsize=8)
    if count <= _NUMBERED:
        for row, column in np.argwhere(confusion):
            value = share[row, column]
            colour = "white" if value > 50 else "black"
            text = f"{value:.0f}" if value >= 1 else "<1"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure
