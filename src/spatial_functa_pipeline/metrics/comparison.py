"""All scores of one set of features against another, from parts of each set that are computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from spatial_functa_pipeline.compute import float32_products
from spatial_functa_pipeline.metrics.features import FeatureExtractor
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_estimate
from spatial_functa_pipeline.metrics.intervals import Estimate
from spatial_functa_pipeline.metrics.kid import kid_estimate, similarity_between, similarity_within
from spatial_functa_pipeline.metrics.precision_recall import (
    COVERAGE_NEIGHBOUR,
    MANIFOLD_SCORES,
    Manifold,
    manifold_scores,
)

SCORES_OF_ALL = ("frechet_distance",)
"""Scores that use all features of a set."""
SCORES_OF_PAIRS = ("kid", *MANIFOLD_SCORES)
"""Scores that look at pairs of images, and use the first of a set."""
SCORES = (*SCORES_OF_ALL, *SCORES_OF_PAIRS)
_RANGES = {"frechet_distance": (0, inf), "precision": (0, 1), "recall": (0, 1), "density": (0, inf), "coverage": (0, 1)}
"""What a score can be; any number if it is not here."""


@dataclass(frozen=True)
class FeatureSet:
    """What the scores need to know of a set of images, whose features are not kept.

    Attributes:
        moments: of the features of all N images.
        paired: `(≤ pairs, F)`, the features of the first images. KID, precision and the like look at pairs of images, whose
            number grows as N², so they use these.
    """

    moments: FeatureMoments
    paired: Tensor

    @classmethod
    @float32_products()
    def of(cls, extractor: FeatureExtractor, image_batches: Iterable[Tensor], pairs: int) -> FeatureSet:
        """Features of all images in `image_batches`, each `(B, H, W, channels)`: float64 sums, and float32 of the first.

        Raises ValueError if a feature is not finite, or there are no images.
        """
        moments, paired, left = FeatureMoments(extractor.width), [], pairs
        for images in image_batches:
            features = extractor(images).cpu()
            moments.update(features)
            if left > 0:
                paired.append(features[:left].clone())  # a view would keep the whole batch
                left -= len(paired[-1])
        if not moments.count:
            raise ValueError("there are no images to take features of")
        return cls(moments, torch.cat(paired))

    def __len__(self) -> int:
        return self.moments.count

    def with_pairs(self, pairs: int) -> FeatureSet:
        """The same set, of which at most `pairs` images are looked at in pairs."""
        return FeatureSet(self.moments, self.paired[:pairs])

    @cached_property
    def manifold(self) -> Manifold:
        """Balls around the paired features."""
        return Manifold.of(self.paired)

    @cached_property
    def similarity(self) -> Tensor:
        """Mean similarity of each paired feature to the others, `(≤ pairs,)`."""
        return similarity_within(self.paired)


def compare(
    generated: FeatureSet, real: FeatureSet, resamples: int | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """The `SCORES` of a generated set against a real one; NaN where one of the two has too few images for a score.

    Args:
        resamples: random halves of both sets that the variance of scores of neighbours is taken from.
        seed: of these halves.

    Raises ValueError if their features are of different kinds.
    """
    scores = dict.fromkeys(SCORES, Estimate())
    count = min(len(generated.paired), len(real.paired))
    if count > 1:
        between = similarity_between(generated.paired, real.paired)
        scores["frechet_distance"] = frechet_estimate(generated.moments, real.moments, generated.paired, real.paired)
        scores["kid"] = kid_estimate(generated.similarity, real.similarity, *between)
    if count > COVERAGE_NEIGHBOUR:
        scores |= manifold_scores(generated.manifold, real.manifold, resamples, seed)
    return scores


def bounds(score: str, estimate: Estimate) -> tuple[float, float]:
    """The 95 % interval of one of the `SCORES`; NaN where it is not known."""
    return estimate.interval(*_RANGES.get(score, ()))
