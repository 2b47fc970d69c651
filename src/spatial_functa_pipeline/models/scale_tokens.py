"""Latents of several scales as tokens: each cell of each grid is one, and each grid has its own linear embedding."""

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import split_scales


class ScaleEmbedding(nn.ModuleList):
    """Latents `(B, numbers)` → tokens `(B, S, W)`, the coarsest cells first."""

    def __init__(self, latent_shape: LatentShape, width: int) -> None:
        super().__init__(nn.Linear(scale.channels, width) for scale in latent_shape.scales)
        self.latent_shape = latent_shape

    @staticmethod
    def tokens(latent_shape: LatentShape) -> int:
        """S: the cells of all grids."""
        return sum(scale.cells for scale in latent_shape.scales)

    def forward(self, latents: Tensor) -> Tensor:
        """See above."""
        parts = zip(self, split_scales(latents, self.latent_shape), strict=True)
        return torch.cat([embed(cells.flatten(1, -2)) for embed, cells in parts], dim=1)
