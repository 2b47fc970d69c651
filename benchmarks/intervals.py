"""How often the intervals of the scores hold the expected score at their number of images.

Sets of Gaussian features, of which few directions are large, as in those of a trained network, are drawn again and again:
`--images` of each of two kinds. The expected score is the mean over all repetitions; a right interval holds it in 95 % of them.

    python benchmarks/intervals.py --images 1000 --repetitions 200
"""

import argparse

import numpy as np
import pandas as pd
import torch

from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet, compare
from spatial_functa_pipeline.metrics.frechet import FeatureMoments

SCALES = {"of one kind": 1.0, "a little narrower": 0.9, "much narrower": 0.7, "a little wider": 1.1}
"""The generated set's standard deviation, relative to the real one's."""


def drawn(count: int, width: int, scale: float, generator: torch.Generator) -> FeatureSet:
    """Features whose deviations fall from 4 to 0.02."""
    deviations = torch.logspace(np.log10(4), np.log10(0.02), width)
    features = scale * deviations * torch.randn(count, width, generator=generator)
    moments = FeatureMoments(width)
    moments.update(features)
    return FeatureSet(moments, features)


def coverage(images: int, width: int, scale: float, repetitions: int, resamples: int, seed: int) -> pd.DataFrame:
    """A row for each score: its mean and its true deviation, the estimated one, and how many intervals hold the mean."""
    generator = torch.Generator().manual_seed(seed)
    found = [
        compare(*(drawn(images, width, one, generator) for one in (scale, 1.0)), resamples, seed + repetition)
        for repetition in range(repetitions)
    ]
    rows = []
    for score in SCORES:
        values = np.array([one[score].value for one in found])
        variances = np.array([one[score].variance for one in found])
        intervals = np.array([one[score].interval() for one in found])
        held = (intervals[:, 0] <= values.mean()) & (values.mean() <= intervals[:, 1])
        rows.append((score, values.mean(), values.std(ddof=1), np.sqrt(variances.mean()), held.mean()))
    return pd.DataFrame(rows, columns=["score", "mean", "deviation", "estimated", "covered"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=128, help="number of features")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name, scale in SCALES.items():
        table = coverage(given.images, given.width, scale, given.repetitions, given.resamples, given.seed)
        print(f"\n{given.images} images of each of two sets, {given.width} features; generated: {name}")
        print(table.to_string(index=False, float_format="{:.4f}".format), flush=True)


if __name__ == "__main__":
    main()
