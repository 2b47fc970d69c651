"""All scores of one set of features against another, from parts of each set that are computed once."""

from __future__ import annotations

import math
from functools import cached_property

from torch import Tensor

from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance
from spatial_functa_pipeline.metrics.kid import kid_of_mean_similarities, mean_between, mean_within
from spatial_functa_pipeline.metrics.precision_recall import COVERAGE_NEIGHBOUR, Manifold, manifold_scores

SCORES_OF_ALL = ("frechet_distance",)
"""Scores that use all features of a set."""
SCORES_OF_PAIRS = ("kid", "precision", "recall", "density", "coverage")
"""Scores that look at pairs of images, and use the first of a set."""
SCORES = (*SCORES_OF_ALL, *SCORES_OF_PAIRS)
_BATCH = 4096


class FeatureSet:
    """Features of a set of images, and what the scores need to know of them.

    Args:
        features: `(N, F)`.
        pair_images: KID, precision and the like look at pairs of images, whose number grows as N²: they use the first
            `pair_images` rows. The Fréchet distance uses all.
    """

    def __init__(self, features: Tensor, pair_images: int) -> None:
        self.features = features
        self.paired = features[:pair_images]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def moments(self) -> FeatureMoments:
        """Mean and covariance of all features."""
        moments = FeatureMoments(self.features.shape[1])
        for batch in self.features.split(_BATCH):
            moments.update(batch)
        return moments

    @cached_property
    def manifold(self) -> Manifold:
        """Balls around the paired features."""
        return Manifold.of(self.paired)

    @cached_property
    def mean_similarity(self) -> float:
        """Mean similarity within the paired features."""
        return mean_within(self.paired)


def compare(generated: FeatureSet, real: FeatureSet) -> dict[str, float]:
    """The `SCORES` of a generated set against a real one; NaN where one of the two has too few images for a score.

    Raises ValueError if their features are of different kinds.
    """
    scores = dict.fromkeys(SCORES, math.nan)
    count = min(len(generated.paired), len(real.paired))
    if count > 1:
        between = mean_between(generated.paired, real.paired)
        scores["frechet_distance"] = frechet_distance(generated.moments, real.moments)
        scores["kid"] = kid_of_mean_similarities(generated.mean_similarity, real.mean_similarity, between)
    if count > COVERAGE_NEIGHBOUR:
        scores |= manifold_scores(generated.manifold, real.manifold)
    return scores
