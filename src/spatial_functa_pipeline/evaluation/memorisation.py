"""Whether a model repeats its training images: each sample beside its nearest ones (App. C.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import MemorisationConfig
from spatial_functa_pipeline.evaluation.decoding import BATCH, decoded, device_of
from spatial_functa_pipeline.evaluation.memorisation_figures import memorisation_figure, neighbour_figure
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.evaluation.samples import SAMPLES, classes_of
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS, memorisation_table
from spatial_functa_pipeline.metrics.neighbours import Neighbours, comparable_images, nearest_images

_TESTS = "test_images"


def assess_memorisation(
    samples: Functaset,
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Encoder,
    config: MemorisationConfig,
    figure_images: int,
    seed: int,
) -> tuple[Metrics, pd.DataFrame, Figure, Figure]:
    """Nearest training images of the samples, beside those of test images and of their reconstructions (App. C.2).

    Where the denoiser was trained on mirrored images, too, or on augmented copies, which may be mirrored, mirrored images are
    looked up as well, and count as their images.

    Returns the metrics, the table by class (Tab. 7), the distances and counts drawn, and samples with their three nearest
    training images (Fig. 5): the first samples, uncurated, and those that are nearest to a training image.
    """
    limit = min(config.images or len(samples), len(samples))

    def comparable(batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([comparable_images(images, config.max_side) for images in batches])

    def read(rows: np.ndarray) -> Tensor:
        """Training images, and from number N on the same mirrored."""
        images = comparable_images(train_images.batch(rows % len(train_images)), config.max_side)
        mirrored = torch.from_numpy(rows >= len(train_images))
        images[mirrored] = images[mirrored].flip(-2)
        return images

    sets = {
        SAMPLES: comparable(decoded(samples, encoder, limit)),
        _TESTS: comparable(test_images.batches(BATCH, limit)),
        "reconstructions": comparable(decoded(test_functaset, encoder, limit)),
    }
    tests = test_images.labels[:limit]
    labels = {SAMPLES: classes_of(samples.labels[:limit]), _TESTS: tests, "reconstructions": tests}
    mirrored = any(samples.header.settings.get(name) for name in ("mirror_images", "augmented_copies"))
    found = _neighbours(sets, read, len(train_images) * (1 + mirrored), device_of(encoder))
    of_images = {name: Neighbours(near.rows % len(train_images), near.distances) for name, near in found.items()}
    labelled = {name: (of_images[name], labels[name]) for name in sets}
    table = memorisation_table(labelled, _TESTS, train_images.labels, train_images.classes)
    distances = {name: neighbours.distances[:, 0] for name, neighbours in found.items()}
    shown = _samples_with_neighbours(sets[SAMPLES], found[SAMPLES], read, figure_images)
    among = f"{len(train_images)} training images{' and their mirror images' if mirrored else ''}"
    metrics = _metrics(table, among, seed, sampled=len(samples))
    return metrics, table, memorisation_figure(distances, table), shown


def _neighbours(
    sets: Mapping[str, Tensor], read: Callable[[np.ndarray], Tensor], train_images: int, device: torch.device
) -> dict[str, Neighbours]:
    """The nearest training images of each set of images, in one search, since it reads all training images."""
    nearest = nearest_images(torch.cat(list(sets.values())), read, train_images, min(3, train_images), device)
    ends = np.cumsum([len(images) for images in sets.values()])[:-1]
    parts = zip(np.split(nearest.rows, ends), np.split(nearest.distances, ends), strict=True)
    return {name: Neighbours(*part) for name, part in zip(sets, parts, strict=True)}


def _metrics(table: pd.DataFrame, among: str, seed: int, sampled: int) -> Metrics:
    """Of each whole set, the numbers that belong in `metrics.json`; those relative to the test images not of these."""
    measured: dict[str, tuple[float, str]] = {}
    for row in table[table["class"] == EVERY_CLASS].to_dict("records"):
        name, count = row["images"], row["count"]
        of = f" of {sampled}" if name == SAMPLES and count < sampled else ""
        where = f"{count}{of} {name.replace('_', ' ')}, nearest of {among}, seed {seed}"
        expected = f"{row['expected']:.0f} ± {row['expected_std']:.0f}"
        values = {
            "nearest_train_distance": (row["median_distance"], "median"),
            "distinct_nearest_share": (
                row["distinct"] / row["expected"],
                f"{row['distinct']} different ones, i.i.d. draws {expected}",
            ),
        }
        if name != _TESTS:
            values |= {
                "nearer_to_train_than_test": (row["nearer_than_test"], "probability; ½: like test images"),
                "near_copies": (row["near_copies"], "share; 0.01: like test images"),
            }
        for key, (value, explanation) in values.items():
            measured[key if name == SAMPLES else f"{key}_{name}"] = float(value), f"{where}: {explanation}"
    return described(measured)


def _samples_with_neighbours(
    images: Tensor, found: Neighbours, read: Callable[[np.ndarray], Tensor], columns: int
) -> Figure:
    """The first samples and those nearest to a training image, each over its nearest training images."""
    closest = np.argsort(found.distances[:, 0], kind="stable")[:columns]
    chosen = {"first samples": np.arange(len(closest)), "samples nearest\nto training images": closest}
    nearest = {
        name: torch.stack([read(found.rows[row]) for row in rows]) for name, rows in chosen.items()
    }  # (B, k, *resolution, channels)
    distances = {name: Neighbours(found.rows[rows], found.distances[rows]) for name, rows in chosen.items()}
    return neighbour_figure({name: images[rows] for name, rows in chosen.items()}, nearest, distances)
