"""The `evaluation` pipeline."""

from spatial_functa_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
