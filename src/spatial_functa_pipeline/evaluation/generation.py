"""How good samples are: their scores beside those of reference points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.decoding import decoded
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.evaluation.samples import SAMPLES
from spatial_functa_pipeline.evaluation.score_figure import score_figure
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.metrics.comparison import SCORES, SCORES_OF_PAIRS, FeatureSet, compare
from spatial_functa_pipeline.metrics.features import (
    FeatureExtractor,
    InceptionFeatures,
    extract_features,
    metric_name,
)

_SETTINGS = ("sampler", "steps", "guidance_scale", "guidance_interval", "network_evaluations", "classes")
"""Of those that are stored with the samples, what stands beside each score."""
_SUBJECTS = {
    "train_images": "real training images",
    "reconstructions": "reconstructed test images",
    "pca_codes": "test images from PCA codes",
    "noise": "decoded noise",
}


def score_samples(
    samples: Functaset,
    field: SpatialField,
    extractor: FeatureExtractor,
    real: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    pair_images: int,
    seed: int,
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """All scores of the decoded samples and of the reference points, against the test and the training images.

    The metrics are those of the samples against both, and the Fréchet distances of the reference points to the test
    images. The table has every score of every set, with N, seed, sampler, guidance and class sampling beside each; the figure
    draws it. Each set has at most as many images as there are samples: the Fréchet distance depends on their number. A score
    that a set has too few images for is no metric, and empty in the table.

    Args:
        samples: with the settings they were drawn with.
        field: decodes them.
        extractor: of their features, and of all others'.
        real: of `real_features`.
        reference: of `reference_features`.
        pair_images: of each set, at most, in the scores that look at pairs.
        seed: of all of it, for what stands beside the numbers.
    """
    generated = {SAMPLES: extract_features(extractor, decoded(samples, field)), **reference}
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
        # Equal numbers of each set, as far as there are: coverage and recall depend on them.
        for name, against, scores in _comparisons(generated, real, min(pair_images, len(samples)))
    ]
    table = pd.DataFrame(rows)
    return _metrics(table, extractor.name, _in_words(settings), weights), table, score_figure(table)


def _comparisons(
    generated: Mapping[str, Tensor], real: Mapping[str, Tensor], pairs: int
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Name of the set, name of the real set it is compared with, and its scores beside the numbers of images.

    Each real set is compared with the other one too, cut to the number of samples.
    """
    subjects = {name: FeatureSet(features, pairs) for name, features in generated.items()}
    references = {name: FeatureSet(real[name], pairs) for name in ("test", "train")}
    count = len(generated[SAMPLES])
    for against, other in (("test", "train"), ("train", "test")):
        reference = references[against]
        few = FeatureSet(references[other].features[:count], pairs)
        for name, subject in {**subjects, f"{other}_images": few}.items():
            numbers = {
                "count": len(subject),
                "count_against": len(reference),
                "count_pairs": len(subject.paired),
                "count_pairs_against": len(reference.paired),
            }
            yield name, against, {**compare(subject, reference), **numbers}


def _in_words(settings: dict[str, Any]) -> str:
    words = f"by {settings['sampler']} in {settings['steps']} steps ({settings['network_evaluations']} evaluations), "
    if settings["classes"] is None:
        return words + "unconditional"
    interval = settings["guidance_interval"]
    at = "" if interval is None else f" at noise levels {interval[0]:g} to {interval[1]:g}"
    return f"{words}guidance {settings['guidance_scale']}{at}, classes {settings['classes']}"


def _metrics(table: pd.DataFrame, features: str, how: str, weights: str | None) -> Metrics:
    """The numbers of the table that belong in `metrics.json`, each with what it was measured on."""
    measured: dict[str, tuple[float, str]] = {}
    for row in table.to_dict("records"):
        name, against = row["images"], row["against"]
        sampled = name == SAMPLES
        if not sampled and against == "train":
            continue
        subject = f"samples {how}" if sampled else _SUBJECTS[name]
        suffix = ("" if against == "test" else "_against_train") if sampled else f"_{name}"
        for score in SCORES if sampled else ("frechet_distance",):
            if math.isnan(row[score]):
                continue  # too few images
            paired = "_pairs" if score in SCORES_OF_PAIRS else ""
            estimate = ", unbiased estimate from all pairs" if score == "kid" else ""
            measured[f"{metric_name(features, score)}{suffix}"] = (
                row[score],
                f"{row[f'count{paired}']} {subject}, against {row[f'count{paired}_against']} {against} images, "
                f"seed {row['seed']}{estimate}{f', weights {weights}' if weights else ''}",
            )
    return described(measured)
