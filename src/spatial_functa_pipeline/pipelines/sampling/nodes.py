"""Nodes of `sampling`."""

from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import sample_figures
from spatial_functa_pipeline.evaluation.samples import plan_samples
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, unpack_denoiser, unpack_encoder, unpack_guide


def sample_latents(
    denoiser: Weights,
    train_functaset: Functaset,
    config: SamplingConfig,
    dataset: str,
    seed: int,
    runtime: RuntimeConfig,
) -> FunctasetPlan:
    """Sample latents and map them back from normalised to raw (the inverse of Eq. 1).

    Classes take turns; the label of an unconditional sample is −1. Each batch is stored once it is drawn, so that an
    interrupted sampling goes on with the next; how they were drawn stands beside them.
    """
    device = resolve_device(runtime.device)
    return plan_samples(
        *unpack_denoiser(denoiser, device),
        config,
        train_functaset.header,
        dataset=dataset,
        fingerprint=denoiser.digest,
        seed=seed,
        runtime=runtime,
        guide=unpack_guide(denoiser, device),
    )


def draw_samples(
    samples: Functaset, test_images: Images, encoder: Weights, figure_images: int, runtime: RuntimeConfig
) -> tuple[Figure, Figure]:
    """The first samples of each class; some of them also at a multiple of the resolution, if the encoder decodes at any."""
    decoder = unpack_encoder(encoder, resolve_device(runtime.device))
    return sample_figures.draw_samples(samples, decoder, test_images.classes, figure_images)
