"""The seed of a sample: each has random numbers of its own, which (seed, number of the sample) fix.

So a sample depends neither on the batch it is drawn in nor on how many others are drawn.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.fields.latent_shape import LatentShape


def sample_seed(seed: int, number: int) -> int:
    """The seed of sample `number` (from 0): that of sample 0 + `number`, modulo 2³².

    Torch's CPU generator keeps 32 bits of its seed. `number` is added to the hashed `seed`: no two samples of one `seed`
    share a stream, as they might if the pair were hashed, and neighbouring seeds are far apart.
    """
    first = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (first + number) % 2**32


def sample_generator(seed: int, number: int) -> torch.Generator:
    """The CPU generator of all of sample `number`'s random numbers; the first of them are x_T."""
    return torch.Generator().manual_seed(sample_seed(seed, number))


def initial_noise(latent_shape: LatentShape, generators: Sequence[torch.Generator]) -> Tensor:
    """x_T `(len(generators), *grid, c)`, standard normal, on the CPU: that of each sample from its own generator."""
    return torch.stack([torch.randn(latent_shape.shape, generator=generator) for generator in generators])
