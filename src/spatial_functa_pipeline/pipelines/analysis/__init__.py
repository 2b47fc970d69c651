"""The `analysis` pipeline."""

from spatial_functa_pipeline.pipelines.analysis.pipeline import create_pipeline

__all__ = ["create_pipeline"]
