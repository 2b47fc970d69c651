"""The `pixel_classification` pipeline."""

from spatial_functa_pipeline.pipelines.pixel_classification.pipeline import create_pipeline

__all__ = ["create_pipeline"]
