"""The residual MLP, classifier or denoiser of vector functa."""

from __future__ import annotations

from pydantic import PositiveInt

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.fields.latent_shape import LatentShape


class MLPConfig(Block):
    """Residual SiLU MLP for vector functa (s = 1; App. B.1)."""

    width: PositiveInt
    blocks: PositiveInt


def uses_mlp(architecture: str, latent_shape: LatentShape) -> bool:
    """Whether `auto` or an explicit choice means the residual MLP: vector functa (s = 1) have no grid to work on."""
    return architecture == "mlp" or (architecture == "auto" and latent_shape.cells == 1)
