"""MixUp: a classifier trained on weighted means of pictures, or of latents, and of their classes (Zhang et al., 2018)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def mixed(
    inputs: Tensor, labels: Tensor, num_classes: int, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """λx + (1 − λ)x′ of each row x and its partner x′, and the probabilities of the classes mixed alike.

    λ ~ Beta(α, α) is one number for a step, as in the code of Zhang et al. Partners are neighbours: the first row and the
    second, the third and the fourth. A batch is shuffled, so they are a random pair, and they stay together in every part of
    the batch of an even number of rows. λ follows from the seed of the step's generator: all parts have the same one.

    Args:
        inputs: `(B, …)`, normalised.
        labels: `(B,)` int64.
        num_classes: K.
        alpha: α.
        generator: of this step; nothing is drawn from it.

    Returns `(B, …)` and `(B, K)`, float32. Raises ValueError for an odd number of rows.
    """
    if len(inputs) % 2:
        raise ValueError(f"MixUp takes rows in pairs, but got {len(inputs)}")
    share = np.random.default_rng(generator.initial_seed()).beta(alpha, alpha)
    return _with_partners(inputs, share), _with_partners(F.one_hot(labels, num_classes).float(), share)


def _with_partners(values: Tensor, share: float) -> Tensor:
    partners = values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return share * values + (1 - share) * partners
