"""The `encoder` pipeline."""

from spatial_functa_pipeline.pipelines.encoder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
