"""Nodes of `normalization_stats`."""

from spatial_functa_pipeline.config.normalization_stats import NormalizationStatsConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.models.weights import Weights


def compute_latent_statistics(
    train_functaset: Functaset, config: NormalizationStatsConfig, runtime: RuntimeConfig
) -> Weights:
    """Scalar, vector and array means and standard deviations, and the largest |z| of each (Eq. 1).

    If `config` asks for it, of rotated latents, with the matrix.
    """
    scheduling = Scheduling(runtime.scheduler, runtime.workers)
    return Weights(*compute_statistics(train_functaset, scheduling, config.rotation).to_tensors())
