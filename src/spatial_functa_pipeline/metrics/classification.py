"""What a classifier confuses with what."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 `(K, K)`: row the true class, column the predicted one.

    Args:
        labels: true classes, integers `(N,)` in 0 … K − 1.
        predicted: predicted classes, likewise.
        num_classes: K.

    Raises ValueError if the two are not of equal length or hold a class that does not exist.
    """
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"expected one prediction per label, got {labels.shape} labels, {predicted.shape} predictions")
    both = np.concatenate([labels, predicted])
    if both.size and not 0 <= both.min() <= both.max() < num_classes:
        raise ValueError(f"there are classes 0 to {num_classes - 1}, but found {both.min()} to {both.max()}")
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_table(confusion: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The matrix `(K, K)` with names: a row for each true class, a column for each predicted one."""
    return pd.DataFrame(confusion, columns=list(classes)).assign(true_class=list(classes)).set_index("true_class")


def class_accuracies(confusion: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """A row for each class of a confusion matrix `(K, K)`.

    Columns: `class`; `images` of it; `accuracy`, the share of these which is recognised (the recall); `precision`, the
    share of those taken for this class which is of it; `most_often_taken_for`, the wrong class predicted most often,
    and how often in `times`. NaN and an empty name where there is nothing to divide or to name.
    """
    right, images, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    wrong = confusion - np.diag(right)
    times, other = wrong.max(axis=1), wrong.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        accuracy, precision = right / images, right / predicted
    return pd.DataFrame(
        {
            "class": list(classes),
            "images": images,
            "accuracy": accuracy,
            "precision": precision,
            "most_often_taken_for": [
                classes[row] if count else "" for row, count in zip(other.tolist(), times, strict=True)
            ],
            "times": times,
        }
    )
