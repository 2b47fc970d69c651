"""The `scoring` pipeline."""

from spatial_functa_pipeline.pipelines.scoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
