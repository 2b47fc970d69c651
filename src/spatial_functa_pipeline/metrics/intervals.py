"""How far chance alone moves a score: 95 % intervals around it.

Other images of the same kind, as many, would give another score. An interval is about the mean of all these: the expected score
*at this number of images*, bias included. Its half width is 1.96 standard deviations, which are estimated in two ways:

- where a score is smooth in the images' weights, from what each image contributes to it, its derivative (the infinitesimal
  jackknife; Jaeckel, 1972). No random numbers are needed.
- where it looks at neighbours, from the spread over random halves of both sets, drawn without replacement (the delete-half
  jackknife; Shao & Wu, 1989). The spread over halves is that over sets of the full size.

A bootstrap would do neither: its sets have fewer distinct images, which moves and spreads a Fréchet distance more than chance
does, and have copies, which are each other's nearest neighbours.
"""

from __future__ import annotations

from math import inf, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

CONFIDENCE = 0.95
_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Estimate(NamedTuple):
    """A score and the variance of its distribution over sets of images; NaN: not known."""

    value: float = nan
    variance: float = nan

    def interval(self, lowest: float = -inf, highest: float = inf) -> tuple[float, float]:
        """The lower and the upper bound, within what the score can be; NaN without a variance."""
        if self.variance != self.variance:
            return nan, nan
        half = _QUANTILE * sqrt(self.variance)
        return max(lowest, self.value - half), min(highest, self.value + half)


def variance_of_contributions(*sides: tuple[Tensor, int]) -> float:
    """Variance of a score from what the images of each independent set contribute to it.

    Args:
        sides: of each set the contributions `(n,)`, of all its images or of the first, and the number N of all.
    """
    return sum(contributions.var().item() / count for contributions, count in sides)


def random_halves(count: int, resamples: int, generator: torch.Generator) -> Tensor:
    """Which of `count` images are in each half: bool `(resamples, count)`, `count // 2` of them in each row."""
    order = torch.rand(resamples, count, generator=generator).argsort(dim=1)
    return torch.zeros(resamples, count, dtype=torch.bool).scatter_(1, order[:, : count // 2], value=True)
