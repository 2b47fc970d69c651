"""Whether a model repeats its training images (App. C.2), judged by the nearest training image of each sample.

Two things tell: samples are nearer to training images than images that the model cannot have seen (the test set's) are; and
the nearest images of many samples are few different ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spatial_functa_pipeline.metrics.neighbours import Neighbours

EVERY_CLASS = "all"
_NEAR_COPY_QUANTILE = 0.01


@dataclass(frozen=True)
class DistinctDraws:
    """How many different objects are seen in independent uniform draws with replacement: mean and standard deviation.

    `independent_std` is what the paper prints (34 for 5,000 draws of 5,000, App. C.2): that of a sum over objects which are
    seen independently of each other. They are not, since one that is drawn twice keeps another from being drawn; the exact
    `std` is smaller (22).
    """

    mean: float
    std: float
    independent_std: float


def distinct_draws(population: int, draws: int) -> DistinctDraws:
    """The law of the number of different objects in `draws` draws of `population` objects.

    An object stays unseen with probability p = (1 − 1/n)^m, two given ones with q = (1 − 2/n)^m. So the mean is n (1 − p),
    and the variance n p (1 − p) + n (n − 1) (q − p²). Raises ValueError for an empty population or negative draws.
    """
    if population < 1 or draws < 0:
        raise ValueError(f"needs a population and draws from it, got {draws} draws of {population}")
    unseen = (1 - 1 / population) ** draws
    both_unseen = (1 - 2 / population) ** draws if population > 1 else float(draws == 0)
    independent = population * unseen * (1 - unseen)
    variance = independent + population * (population - 1) * (both_unseen - unseen**2)
    return DistinctDraws(population * (1 - unseen), math.sqrt(max(0.0, variance)), math.sqrt(independent))


def share_nearer(distances: np.ndarray, reference: np.ndarray) -> float:
    """Probability that a distance is smaller than one of the `reference` (equal ones count half): ½ if they are alike."""
    ordered = np.sort(reference)
    below, up_to = (np.searchsorted(ordered, distances, side) for side in ("left", "right"))
    return float(1 - (below + up_to).mean() / (2 * len(ordered)))


def memorisation_table(
    found: Mapping[str, tuple[Neighbours, np.ndarray | None]],
    test: str,
    train_labels: np.ndarray,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Counts and distances for each set of images, all of it and by class (Tab. 7).

    Args:
        found: name of the set → its neighbours, and its labels `(N,)` or None where it has no classes.
        test: name of the set that the model cannot have seen, with which the distances of the others are compared.
        train_labels: `(T,)`.
        classes: their names.

    Returns:
        Columns: `images` (name of the set), `class` (a name, or `EVERY_CLASS`), `count`, `train_images` (of this class),
        `distinct` (different training images among the nearest), `expected`, `expected_std` (of as many i.i.d. draws from
        the training images of this class), `expected_std_paper` (see `DistinctDraws`), `same_class` (share whose nearest
        training image is of their class), `median_distance`, `nearer_than_test` (`share_nearer`), `near_copies` (share that is
        nearer to its training image than 99 % of the test images are to theirs).
    """
    unseen = found[test][0].distances[:, 0]
    near = np.quantile(unseen, _NEAR_COPY_QUANTILE)
    rows = []
    for name, (neighbours, labels) in found.items():
        groups: list[tuple[str, np.ndarray, int]] = [
            (EVERY_CLASS, np.ones(len(neighbours.rows), bool), len(train_labels))
        ]
        if labels is not None and len(classes) > 1:  # the one class of others is every class
            groups += [
                (classes[label], labels == label, int((train_labels == label).sum())) for label in np.unique(labels)
            ]
        for group, members, population in groups:
            nearest, distances = neighbours.rows[members, 0], neighbours.distances[members, 0]
            law = distinct_draws(population, len(nearest)) if population else DistinctDraws(0.0, 0.0, 0.0)
            rows.append(
                {
                    "images": name,
                    "class": group,
                    "count": len(nearest),
                    "train_images": population,
                    "distinct": len(np.unique(nearest)),
                    "expected": law.mean,
                    "expected_std": law.std,
                    "expected_std_paper": law.independent_std,
                    "same_class": np.nan if labels is None else (train_labels[nearest] == labels[members]).mean(),
                    "median_distance": np.median(distances),
                    "nearer_than_test": share_nearer(distances, unseen),
                    "near_copies": (distances <= near).mean(),
                }
            )
    return pd.DataFrame(rows)
