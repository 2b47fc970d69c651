"""All scores of one set of features against another, from parts of each set that are computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spatial_functa_pipeline.compute import float32_products
from spatial_functa_pipeline.metrics.features import FeatureExtractor
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance
from spatial_functa_pipeline.metrics.kid import kid_of_mean_similarities, mean_between, mean_within
from spatial_functa_pipeline.metrics.precision_recall import Manifold, manifold_scores

SCORES_OF_ALL = ("frechet_distance",)
"""Scores that use all features of a set."""
SCORES_OF_PAIRS = ("kid", "precision", "recall", "density", "coverage")
"""Scores that look at pairs of images, and use the first of a set."""
SCORES = (*SCORES_OF_ALL, *SCORES_OF_PAIRS)


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
    def mean_similarity(self) -> float:
        """Mean similarity within the paired features."""
        return mean_within(self.paired)


def compare(generated: FeatureSet, real: FeatureSet) -> dict[str, float]:
    """The `SCORES` of a generated set against a real one.

    Raises ValueError if there are too few images in a set, or their features are of different kinds.
    """
    between = mean_between(generated.paired, real.paired)
    return {
        "frechet_distance": frechet_distance(generated.moments, real.moments),
        "kid": kid_of_mean_similarities(generated.mean_similarity, real.mean_similarity, between),
        **manifold_scores(generated.manifold, real.manifold),
    }
