"""The main numbers of a run, each beside what it should be compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.reports.page import number


@dataclass(frozen=True)
class Comparison:
    """A number beside its reference points.

    Attributes:
        what: in words.
        metric: its name among the metrics.
        value: the number, with its unit.
        interval: its 95 % interval, if it has one.
        beside: reference points, each as its number and what it is of.
        measured_on: what it was measured on, with N.
    """

    what: str
    metric: str
    value: str
    interval: str
    beside: tuple[tuple[str, str], ...]
    measured_on: str


@dataclass(frozen=True)
class _Row:
    """How a kind of metric is shown.

    `beside` has names of other metrics, or numbers that hold by definition, and what each is of. Both may use the groups of
    `metric`.
    """

    metric: str
    what: str
    beside: tuple[tuple[str | float, str], ...] = ()
    unit: str = ""


_TO_TEST = (
    (r"\1_train_images_to_test", "as many real training images"),
    (r"\1_reconstructions_to_test", "reconstructed test images"),
    (r"\1_pca_codes_to_test", "test images from PCA codes"),
    (r"\1_noise_to_test", "decoded noise"),
)
_TO_TRAIN = (
    (r"\1_test_images_to_train", "as many real test images"),
    (r"\1_reconstructions_to_train", "reconstructed test images"),
    (r"\1_pca_codes_to_train", "test images from PCA codes"),
    (r"\1_noise_to_train", "decoded noise"),
)
_FEATURES = "convnet|convnet_large|inception_[0-9a-f]{8}"
_ROWS = (
    _Row("psnr", "PSNR of the reconstructions", (("psnr_pca", "PCA codes of as many numbers"),), " dB"),
    _Row("top1_accuracy", "top-1 accuracy on latents"),
    _Row("(fid)_to_test", "FID of the samples, to the test images", _TO_TEST),
    _Row("(fid)_to_train", "FID of the samples, to the training images", _TO_TRAIN),
    _Row(
        rf"(frechet_distance_(?:{_FEATURES}))_to_test", "Fréchet distance of the samples, to the test images", _TO_TEST
    ),
    _Row(
        rf"(frechet_distance_(?:{_FEATURES}))_to_train",
        "Fréchet distance of the samples, to the training images",
        _TO_TRAIN,
    ),
    _Row(rf"precision(?:_(?:{_FEATURES}))?_to_test", "precision of the samples"),
    _Row(rf"recall(?:_(?:{_FEATURES}))?_to_test", "recall of the samples"),
    _Row(
        "seam_ratio_reconstructions", "seams of the reconstructions", (("seam_ratio_test_images", "the test images"),)
    ),
    _Row("seam_ratio_samples", "seams of the samples", (("seam_ratio_test_images", "the test images"),)),
    _Row(
        "near_copies",
        "share of samples that are near copies of training images",
        ((0.01, "the test images"), ("near_copies_reconstructions", "their reconstructions")),
    ),
    _Row(
        "distinct_nearest_share",
        "training images that are nearest to a sample ÷ as many random draws",
        (
            ("distinct_nearest_share_test_images", "the test images"),
            ("distinct_nearest_share_reconstructions", "their reconstructions"),
        ),
    ),
)


def comparisons(metrics: Metrics) -> Iterator[Comparison]:
    """Those of the main numbers that were measured, in the order of the flow."""
    details, intervals = metrics["details"], intervals_in_words(metrics)
    for row in _ROWS:
        for name in metrics:
            if found := re.fullmatch(row.metric, name):
                beside = tuple(_beside(row, found, metrics))
                value, interval = number(metrics[name]) + row.unit, intervals.get(name, "")
                yield Comparison(row.what, name, value, interval, beside, details.get(name, ""))


def intervals_in_words(metrics: Metrics) -> dict[str, str]:
    """The 95 % interval of each number that has one, as `1.2 to 1.5`."""
    found: dict[str, list[float]] = metrics.get("intervals", {})
    return {name: f"{low:.3g} to {high:.3g}" for name, (low, high) in found.items()}


def _beside(row: _Row, found: re.Match[str], metrics: Metrics) -> Iterator[tuple[str, str]]:
    for reference, of in row.beside:
        value = metrics.get(found.expand(reference)) if isinstance(reference, str) else reference
        if value is not None:
            yield number(value) + row.unit, of
