"""Normalisation of latents before they are modelled, and its inverse (Eq. 1, App. C.4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from spatial_functa_pipeline.compute import float32_products
from spatial_functa_pipeline.functasets.rotation import rotated, rotated_back
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, NormalisationKind


class Normaliser(nn.Module):
    """z̃ = (z − μ)/(γσ), element-wise (Eq. 1), and its inverse; or z̃ = (Qz − μ)/(γσ), of rotated latents.

    Its buffers are all of it, so it is kept as its state: `Normaliser(**normaliser.state_dict())` is the same again.

    Attributes:
        mean: μ, float32, `()`, `(c,)` or `(*grid, c)`; of several scales `(numbers,)` for the last two.
        scale: γσ, float32, shaped like μ.
        clip_range: largest |z̃| in the training set of the numbers that share a μ, float32, shaped like it; infinite if
            it is not known.
        rotation: Q, float32, over the numbers of a cell or of a whole latent, see `functasets.rotation`; None: latents are
            normalised as they are.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    clip_range: torch.Tensor
    rotation: torch.Tensor | None

    def __init__(
        self,
        mean: torch.Tensor,
        scale: torch.Tensor,
        clip_range: torch.Tensor,
        rotation: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("rotation", rotation)
        for name, value in (("mean", mean), ("scale", scale), ("clip_range", clip_range)):
            self.register_buffer(name, value.float())
        if not (self.scale > 0).all():
            raise ValueError("a normalisation scale must be positive in every element")

    @classmethod
    def from_statistics(cls, statistics: LatentStatistics, kind: NormalisationKind, gamma: float = 1.0) -> Normaliser:
        """Eq. 1 with the moments of the training set.

        A vector or array element that never varies in the training set (σ = 0: the corner of images with an empty
        background, say) is divided by γ times the scalar σ instead, or by γ if that is 0 too. Its z̃ is 0 in the
        training set either way; so chosen, a denoiser's small error there is as small in z as it is elsewhere.
        """
        moments, overall = statistics.of_numbers(kind), statistics.moments["scalar"].std
        overall = torch.where(overall > 0, overall, 1.0)
        std = torch.where(moments.std > 0, moments.std, overall)
        return cls(moments.mean, gamma * std, moments.largest / gamma, statistics.rotation)

    @classmethod
    def by_scale(cls, scale: float, rotation: torch.Tensor | None = None) -> Normaliser:
        """z̃ = z/scale, or Qz/scale, not centred, as for classification (App. B.1)."""
        return cls(torch.tensor(0.0), torch.tensor(scale), torch.tensor(math.inf), rotation)

    @property
    def rotated_numbers(self) -> int | None:
        """How many numbers are rotated together; None if none are."""
        return None if self.rotation is None else len(self.rotation)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalise latents `(B, *grid, c)` of any float type, on the normaliser's device; float32."""
        latents = latents.float()
        if self.rotation is not None:
            with self._exact_products():
                latents = rotated(latents, self.rotation)
        return (latents - self.mean) / self.scale

    def inverse(self, normalised: torch.Tensor) -> torch.Tensor:
        """Raw latents `(B, *grid, c)` of normalised ones, on the normaliser's device; float32."""
        latents = normalised.float() * self.scale + self.mean
        if self.rotation is not None:
            with self._exact_products():
                latents = rotated_back(latents, self.rotation)
        return latents

    @contextmanager
    def _exact_products(self) -> Iterator[None]:
        """Whatever the precision of the network around it: a rotation is to keep all information."""
        with float32_products(), torch.autocast(self.scale.device.type, enabled=False):
            yield
