"""The `diffusion` pipeline."""

from spatial_functa_pipeline.pipelines.diffusion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
