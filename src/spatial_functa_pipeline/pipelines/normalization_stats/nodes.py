"""Nodes of `normalization_stats`."""

from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.models.weights import Weights


def compute_latent_statistics(train_functaset: Functaset) -> Weights:
    """Scalar, vector and array means and standard deviations, and the largest |z| of each kind (Eq. 1)."""
    return Weights(*compute_statistics(train_functaset).to_tensors())
