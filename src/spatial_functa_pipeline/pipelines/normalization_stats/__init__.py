"""The `normalization_stats` pipeline."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
