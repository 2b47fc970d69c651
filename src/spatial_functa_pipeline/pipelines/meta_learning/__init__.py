"""The `meta_learning` pipeline."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
