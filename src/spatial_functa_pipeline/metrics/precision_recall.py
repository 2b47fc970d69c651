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

from spatial_functa_pipeline.metrics.intervals import Estimate, random_halves

PRECISION_NEIGHBOUR = 3
COVERAGE_NEIGHBOUR = 5
MANIFOLD_SCORES = ("precision", "recall", "density", "coverage")
_BLOCK = 512
_NEAREST = 32
"""Neighbours of each feature that are kept: in all but one of 100,000 cases five of them are in a random half."""


@dataclass(frozen=True)
class Manifold:
    """Features `(N, F)` in float64 and the nearest others of each, `nearest` and `squares (N, ≤ 32)`: their positions and
    squared distances, from near to far."""

    features: Tensor
    nearest: Tensor
    squares: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Manifold:
        """The manifold of `(N, F)`. Raises ValueError unless there are more than `COVERAGE_NEIGHBOUR` rows."""
        if len(features) <= COVERAGE_NEIGHBOUR:
            raise ValueError(
                f"precision and coverage need more than {COVERAGE_NEIGHBOUR} images in each set, got {len(features)}"
            )
        features, found = features.double(), []
        for start in range(0, len(features), _BLOCK):
            distances = squared_distances(features[start : start + _BLOCK], features)
            rows = torch.arange(len(distances))
            distances[rows, start + rows] = torch.inf  # not its own neighbour, but a copy of it is one
            found.append(distances.topk(min(_NEAREST, len(features) - 1), dim=1, largest=False))
        return cls(features, torch.cat([one.indices for one in found]), torch.cat([one.values for one in found]))

    def __len__(self) -> int:
        return len(self.features)

    def squared_radii(self, neighbour: int, among: Tensor) -> Tensor:
        """Squared radii `(N,)` of the balls that reach to the k-th neighbour, of those that are `among (N,)`."""
        before = (among[self.nearest].cumsum(dim=1) < neighbour).sum(dim=1, keepdim=True)
        return self.squares.gather(1, before.clamp_max(self.squares.shape[1] - 1))[:, 0]


@dataclass(frozen=True)
class _Near:
    """Pairs of a generated and a real image of which one may lie in the other's ball: positions and squared distances."""

    generated: Tensor
    real: Tensor
    squares: Tensor

    @classmethod
    def of(cls, generated: Manifold, real: Manifold) -> tuple[_Near, _Near]:
        """Pairs within the reach of the real ones' balls, and of the generated ones'."""
        by_real, by_generated = [], []
        for start in range(0, len(generated), _BLOCK):
            squares = squared_distances(generated.features[start : start + _BLOCK], real.features)  # (≤ block, N real)
            reach = generated.squares[start : start + _BLOCK, -1:]
            for pairs, inside in ((by_real, squares <= real.squares[:, -1]), (by_generated, squares <= reach)):
                rows, columns = inside.nonzero(as_tuple=True)
                pairs.append((start + rows, columns, squares[rows, columns]))
        real_balls, generated_balls = (
            cls(*map(torch.cat, zip(*pairs, strict=True))) for pairs in (by_real, by_generated)
        )
        return real_balls, generated_balls


def manifold_scores(
    generated: Manifold, real: Manifold, resamples: int | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """The `MANIFOLD_SCORES` of the generated set, each 0–1 but density, which may exceed 1.

    Their variance is that over `resamples` random halves of both sets; without them, or below twice as many images as a score
    needs, it is not known.
    """
    pairs = _Near.of(generated, real)
    everything = [torch.ones(len(one), dtype=torch.bool) for one in (generated, real)]
    found = [Estimate(value) for value in _scores_among(generated, real, pairs, *everything)]
    if resamples and min(len(generated), len(real)) >= 2 * (COVERAGE_NEIGHBOUR + 1):
        generator = torch.Generator().manual_seed(seed)
        halves = [random_halves(len(one), resamples, generator) for one in (generated, real)]
        spread = torch.tensor(
            [_scores_among(generated, real, pairs, *both) for both in zip(*halves, strict=True)], dtype=torch.float64
        ).var(dim=0)
        found = [Estimate(one.value, variance) for one, variance in zip(found, spread.tolist(), strict=True)]
    return dict(zip(MANIFOLD_SCORES, found, strict=True))


def _scores_among(
    generated: Manifold, real: Manifold, pairs: tuple[_Near, _Near], some: Tensor, some_real: Tensor
) -> tuple[float, float, float, float]:
    """The `MANIFOLD_SCORES` of `some (N,)` of the generated images against `some_real (M,)` of the real ones."""
    by_real, by_generated = pairs
    precise, recalled, covered = torch.zeros_like(some), torch.zeros_like(some_real), torch.zeros_like(some_real)
    present = some[by_real.generated] & some_real[by_real.real]
    near, far = (
        present & (by_real.squares <= real.squared_radii(neighbour, some_real)[by_real.real])
        for neighbour in (PRECISION_NEIGHBOUR, COVERAGE_NEIGHBOUR)
    )
    precise[by_real.generated[near]] = True
    covered[by_real.real[far]] = True
    reach = generated.squared_radii(PRECISION_NEIGHBOUR, some)[by_generated.generated]
    present = some[by_generated.generated] & some_real[by_generated.real]
    recalled[by_generated.real[present & (by_generated.squares <= reach)]] = True
    count, count_real = int(some.sum()), int(some_real.sum())
    return (
        int(precise.sum()) / count,
        int(recalled.sum()) / count_real,
        int(far.sum()) / (COVERAGE_NEIGHBOUR * count),
        int(covered.sum()) / count_real,
    )


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances `(N, M)` between the rows of `(N, F)` and `(M, F)`, by a matrix product; ≥ 0."""
    centre = y.mean(dim=0)  # near the origin the sum below cancels least
    x, y = x - centre, y - centre
    return (x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T).clamp_min(0)
