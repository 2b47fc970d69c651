"""How much of the generated set is real, and how much of the real set is generated, from balls around features.

The manifold of a set is estimated by balls around its features, each as large as the distance to the k-th nearest other
feature of the set. *Precision* is the share of generated images within the real manifold, *recall* the share of real images
within the generated one (Kynkäänniemi et al., 2019; k = 3). *Density* counts for each generated image the real balls that
hold it, relative to k, and *coverage* is the share of real balls that hold a generated image (Naeem et al., 2020; k = 5):
one outlier among the real images, with its huge ball, no longer makes everything precise. Of equal distributions density is
1 in expectation, and coverage 1 − ½⁵ ≈ 0.97 for two large sets of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PRECISION_NEIGHBOUR = 3
COVERAGE_NEIGHBOUR = 5
_BLOCK = 512


@dataclass(frozen=True)
class Manifold:
    """Features `(N, F)` in float64 and the radii² `(N,)` of the balls around them, by the number k of the neighbour."""

    features: Tensor
    squared_radii: dict[int, Tensor]

    @classmethod
    def of(cls, features: Tensor) -> Manifold:
        """The manifold of `(N, F)`. Raises ValueError unless there are more than `COVERAGE_NEIGHBOUR` rows."""
        if len(features) <= COVERAGE_NEIGHBOUR:
            raise ValueError(
                f"precision and coverage need more than {COVERAGE_NEIGHBOUR} images in each set, got {len(features)}"
            )
        features, nearest = features.double(), []
        for start in range(0, len(features), _BLOCK):
            distances = squared_distances(features[start : start + _BLOCK], features)
            rows = torch.arange(len(distances))
            distances[rows, start + rows] = torch.inf  # not its own neighbour, but a copy of it is one
            nearest.append(distances.topk(COVERAGE_NEIGHBOUR, dim=1, largest=False).values)
        squares = torch.cat(nearest)
        return cls(features, {k: squares[:, k - 1] for k in (PRECISION_NEIGHBOUR, COVERAGE_NEIGHBOUR)})


def manifold_scores(generated: Manifold, real: Manifold) -> dict[str, float]:
    """`precision`, `recall`, `density` and `coverage` of the generated set, each 0–1 but density, which may exceed 1."""
    precise = inside = 0
    recalled = torch.zeros(len(real.features), dtype=torch.bool)
    covered = torch.zeros(len(real.features), dtype=torch.bool)
    for start in range(0, len(generated.features), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances = squared_distances(generated.features[part], real.features)  # (≤ block, N real)
        precise += int((distances <= real.squared_radii[PRECISION_NEIGHBOUR]).any(dim=1).sum())
        recalled |= (distances <= generated.squared_radii[PRECISION_NEIGHBOUR][part, None]).any(dim=0)
        within = distances <= real.squared_radii[COVERAGE_NEIGHBOUR]
        inside += int(within.sum())
        covered |= within.any(dim=0)
    count = len(generated.features)
    return {
        "precision": precise / count,
        "recall": recalled.double().mean().item(),
        "density": inside / (COVERAGE_NEIGHBOUR * count),
        "coverage": covered.double().mean().item(),
    }


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances `(N, M)` between the rows of `(N, F)` and `(M, F)`, by a matrix product; ≥ 0."""
    centre = y.mean(dim=0)  # near the origin the sum below cancels least
    x, y = x - centre, y - centre
    return (x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T).clamp_min(0)
