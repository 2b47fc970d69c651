"""The `normalization_stats` pipeline."""

from spatial_functa_pipeline.pipelines.normalization_stats.pipeline import create_pipeline

__all__ = ["create_pipeline"]
