"""The `quantisation` pipeline."""

from spatial_functa_pipeline.pipelines.quantisation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
