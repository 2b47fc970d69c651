"""Nodes of `evaluation`."""

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.evaluation import MemorisationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import memorisation, reconstruction
from spatial_functa_pipeline.evaluation.metrics import Metrics, joined
from spatial_functa_pipeline.evaluation.training_figure import training_curves
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, unpack_encoder


def evaluate_reconstructions(
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Weights,
    figure_images: int,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, Figure]:
    """Test PSNR of the encoder and of a linear code of the same size; originals over reconstructions over error."""
    decoder = unpack_encoder(encoder, resolve_device(runtime.device))
    images = (train_images, test_images, test_functaset)
    return reconstruction.evaluate_reconstructions(*images, decoder, figure_images, seed)


def assess_memorisation(
    samples: Functaset,
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Weights,
    config: MemorisationConfig,
    figure_images: int,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, Figure, Figure]:
    """Nearest training images of the samples, beside those of test images and of their reconstructions (App. C.2).

    Returns the metrics, the table by class (Tab. 7), the distances and counts drawn, and samples with their three nearest
    training images (Fig. 5): the first samples, uncurated, and those that are nearest to a training image.
    """
    decoder = unpack_encoder(encoder, resolve_device(runtime.device))
    images = (samples, train_images, test_images, test_functaset)
    return memorisation.assess_memorisation(*images, decoder, config, figure_images, seed)


def draw_training_curves(
    field: pd.DataFrame, autoencoder: pd.DataFrame, classifier: pd.DataFrame, denoiser: pd.DataFrame
) -> Figure:
    """All metrics of the trainings over their steps; of those that had nothing to do none."""
    histories = {"field": field, "autoencoder": autoencoder, "classifier": classifier, "denoiser": denoiser}
    return training_curves(
        {name: history.drop(columns="seconds", errors="ignore") for name, history in histories.items()}
    )


def collect_metrics(*parts: Metrics) -> Metrics:
    """All metrics of a variant in one file, and under `details` what each was measured on."""
    return joined(*parts)
