"""How good samples are: their scores beside those of reference points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.decoding import decoded
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.evaluation.samples import SAMPLES
from spatial_functa_pipeline.evaluation.score_figure import score_figure
from spatial_functa_pipeline.evaluation.seams import seam_metric
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.metrics.comparison import (
    SCORES,
    SCORES_OF_ALL,
    SCORES_OF_PAIRS,
    FeatureSet,
    bounds,
    compare,
)
from spatial_functa_pipeline.metrics.features import FeatureExtractor, InceptionFeatures, metric_name
from spatial_functa_pipeline.metrics.intervals import Estimate
from spatial_functa_pipeline.metrics.seams import SeamSteps
from spatial_functa_pipeline.training.seeding import derive_seed

_SETTINGS = ("sampler", "steps", "guidance", "guidance_scale", "guidance_interval", "network_evaluations", "classes")
"""Of those that are stored with the samples, what stands beside each score."""
_SUBJECTS = {
    "train_images": "real training images",
    "test_images": "real test images",
    "reconstructions": "reconstructed test images",
    "pca_codes": "test images from PCA codes",
    "noise": "decoded noise",
}


def score_samples(
    samples: Functaset,
    encoder: Encoder,
    extractor: FeatureExtractor,
    real: Mapping[str, FeatureSet],
    reference: Mapping[str, FeatureSet],
    pair_images: int,
    interval_resamples: int | None,
    held_out: int,
    seed: int,
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """All scores of the decoded samples and of the reference points, to the training and to the test images.

    The metrics are all of the samples, and the Fréchet distances of the reference points, each to both; and the samples'
    seams. The table has every score of every set with its 95 % interval, with N, seed, sampler, guidance and class sampling
    beside each; the figure draws it. Each set has at most as many images as there are samples: the Fréchet distance depends on
    their number. A score that a set has too few images for is no metric, and empty in the table.

    Args:
        samples: with the settings they were drawn with.
        encoder: decodes them.
        extractor: of their features, and of all others'.
        real: of `real_features`.
        reference: of `reference_features`.
        pair_images: of each set, at most, in the scores that look at pairs.
        interval_resamples: random halves of each set that the intervals of the scores of neighbours are taken from; None: these
            have none.
        held_out: how many of the training images no model was trained on.
        seed: of all of it: of these halves, and for what stands beside the numbers.
    """
    # Equal numbers of each set, as far as there are: coverage and recall depend on them.
    pairs = min(pair_images, len(samples))
    seams = SeamSteps(encoder.spec.latent_shape.grid)
    sampled = FeatureSet.of(extractor, _watched(decoded(samples, encoder), seams), pairs)
    settings = {name: samples.header.settings.get(name) for name in _SETTINGS}
    weights = extractor.weights_sha256 if isinstance(extractor, InceptionFeatures) else None
    rows = [
        {
            "images": name,
            "against": against,
            "features": extractor.name,
            **scores,
            "seed": seed,
            **(settings if name == SAMPLES else dict.fromkeys(settings)),
            "feature_weights_sha256": weights,
        }
        for name, against, scores in _comparisons(
            {SAMPLES: sampled, **reference}, real, pairs, interval_resamples, derive_seed(seed, "intervals")
        )
    ]
    table = pd.DataFrame(rows)
    references = {"test": "test images", "train": "training images"}
    if held_out:
        references["train"] += f", {held_out} of them held out"
    how = _in_words(settings)
    measured = {
        **_scores(table, extractor.name, references, how, weights),
        **seam_metric(SAMPLES, seams, f"{len(samples)} samples {how}, seed {seed}"),
    }
    return described(measured, _intervals(table, extractor.name)), table, score_figure(table)


def _watched(image_batches: Iterable[Tensor], seams: SeamSteps) -> Iterator[Tensor]:
    """The same batches, whose steps are added to `seams` as they pass."""
    for images in image_batches:
        seams.update(images)
        yield images


def _comparisons(
    subjects: Mapping[str, FeatureSet], real: Mapping[str, FeatureSet], pairs: int, resamples: int | None, seed: int
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name of the set, name of the real set it is compared with, and its scores with their intervals and numbers of images."""
    subjects = {name: subject.with_pairs(pairs) for name, subject in subjects.items()}
    for against in ("test", "train"):
        reference = real[against].with_pairs(pairs)
        for name, subject in subjects.items():
            if name == f"{against}_images":  # a part of the reference
                continue
            numbers = {
                "count": len(subject),
                "count_against": len(reference),
                "count_pairs": len(subject.paired),
                "count_pairs_against": len(reference.paired),
            }
            yield name, against, {**_columns(compare(subject, reference, resamples, seed)), **numbers}


def _columns(scores: Mapping[str, Estimate]) -> dict[str, float]:
    """`<score>`, `<score>_low` and `<score>_high` of each score."""
    found: dict[str, float] = {}
    for score, estimate in scores.items():
        low, high = bounds(score, estimate)
        found |= {score: estimate.value, f"{score}_low": low, f"{score}_high": high}
    return found


def _in_words(settings: dict[str, Any]) -> str:
    words = f"by {settings['sampler']} in {settings['steps']} steps ({settings['network_evaluations']} evaluations), "
    classes = "unconditional" if settings["classes"] is None else f"classes {settings['classes']}"
    if settings["classes"] is None and settings["guidance"] != "autoguidance":
        return words + classes
    interval = settings["guidance_interval"]
    at = "" if interval is None else f" at noise levels {interval[0]:g} to {interval[1]:g}"
    kind = "autoguidance" if settings["guidance"] == "autoguidance" else "guidance"
    return f"{words}{kind} {settings['guidance_scale']}{at}, {classes}"


def _scores(
    table: pd.DataFrame, features: str, references: Mapping[str, str], how: str, weights: str | None
) -> dict[str, tuple[float, str]]:
    """The numbers of the table that belong in `metrics.json`, each with what it was measured on."""
    measured: dict[str, tuple[float, str]] = {}
    for metric, score, row in _reported(table, features):
        name, against = row["images"], row["against"]
        subject = f"samples {how}" if name == SAMPLES else _SUBJECTS[name]
        paired = "_pairs" if score in SCORES_OF_PAIRS else ""
        estimate = ", unbiased estimate from all pairs" if score == "kid" else ""
        measured[metric] = (
            row[score],
            f"{row[f'count{paired}']} {subject}, to {row[f'count{paired}_against']} {references[against]}, "
            f"seed {row['seed']}{estimate}{f', weights {weights}' if weights else ''}",
        )
    return measured


def _intervals(table: pd.DataFrame, features: str) -> dict[str, list[float]]:
    """Lower and upper bound of each metric whose interval is known."""
    return {
        metric: [row[f"{score}_low"], row[f"{score}_high"]]
        for metric, score, row in _reported(table, features)
        if not math.isnan(row[f"{score}_low"])
    }


def _reported(table: pd.DataFrame, features: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The scores that belong in `metrics.json`: name there, which score, and its row of the table."""
    for row in table.to_dict("records"):
        sampled = row["images"] == SAMPLES
        for score in SCORES if sampled else SCORES_OF_ALL:
            if not math.isnan(row[score]):  # else too few images
                yield metric_name(features, row["against"], score, None if sampled else row["images"]), score, row
