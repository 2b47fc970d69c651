"""The residual MLP, classifier or denoiser of vector functa."""

from __future__ import annotations

from pydantic import PositiveInt

from spatial_functa_pipeline.config.block import Block


class MLPConfig(Block):
    """Residual SiLU MLP for vector functa (s = 1; App. B.1)."""

    width: PositiveInt
    blocks: PositiveInt
