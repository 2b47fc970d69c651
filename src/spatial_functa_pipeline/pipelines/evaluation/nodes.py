"""Nodes of `evaluation`."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.evaluation import FrechetConfig, SamplingConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation.decoding import NO_CLASS, PCA_IMAGES, Metrics, decoded, pca_patch
from spatial_functa_pipeline.evaluation.figures import latent_statistics_figure, reconstruction_figure, training_curves
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, pca_psnr, per_image_mse, psnr, psnr_of_mean_mse
from spatial_functa_pipeline.models.sampling import sample, sampling_settings
from spatial_functa_pipeline.models.weights import Weights, pack_feature_network, unpack_denoiser, unpack_field
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed


def evaluate_reconstructions(
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    field: Weights,
    figure_images: int,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, Figure]:
    """Test PSNR of the field and of a linear code of the same size; originals over reconstructions over error."""
    decoder = unpack_field(field, resolve_device(runtime.device))
    mse, shown, start = [], [], 0
    for reconstructions in decoded(test_functaset, decoder):
        mse.append(per_image_mse(reconstructions, test_images.batch(range(start, start + len(reconstructions)))))
        shown.append(reconstructions[: max(0, figure_images - start)])
        start += len(reconstructions)
    mse, shown = torch.cat(mse), torch.cat(shown)
    where = f"test images, seed {seed}, dB"
    metrics = {"psnr": mean_psnr(mse).item(), "psnr_of_mean_mse": psnr_of_mean_mse(mse).item()}
    details = dict.fromkeys(metrics, f"{len(mse)} {where}")
    if (code := pca_patch(decoder.spec)) is not None:
        patch, components = code
        train, test = (range(min(PCA_IMAGES, len(images))) for images in (train_images, test_images))
        metrics["psnr_pca"] = pca_psnr(train_images.batch(train), test_images.batch(test), patch, components)
        details["psnr_pca"] = (
            f"{len(test)} {where}: PCA of {'×'.join(map(str, patch))} patches of {len(train)} training images, "
            f"{components} components"
        )
    metrics["details"] = details
    return metrics, reconstruction_figure(test_images.batch(range(len(shown))), shown, psnr(mse[: len(shown)]))


def sample_latents(
    denoiser: Weights,
    train_functaset: Functaset,
    sampling: SamplingConfig,
    data: DataConfig,
    dataset: str,
    seed: int,
    runtime: RuntimeConfig,
) -> FunctasetPlan:
    """Sample latents and map them back from normalised to raw (the inverse of Eq. 1).

    Classes take turns; the label of an unconditional sample is −1. Each batch is stored once it is drawn, so that an
    interrupted sampling goes on with the next; how they were drawn stands beside them (`sampling_settings`).
    """
    device = resolve_device(runtime.device)
    model, normaliser, process = unpack_denoiser(denoiser, device)
    like, clip_range, seed = train_functaset.header, normaliser.clip_range.item(), derive_seed(seed, "samples")

    def encode(start: int, stop: int) -> Rows:
        labels = torch.arange(start, stop) % data.num_classes if process.conditional else None
        latents = sample(
            model,
            process,
            sampling.model_copy(update={"samples": stop - start}),
            labels,
            like.latent_shape,
            clip_range,
            seed,
            device,
            first=start,
            progress=runtime.progress,
        )
        latents = normaliser.inverse(latents.to(device)).cpu().numpy()
        return Rows.of_samples(latents, np.full(stop - start, NO_CLASS) if labels is None else labels.numpy())

    header = FunctasetHeader(
        dataset=dataset,
        split="samples",
        latent_shape=like.latent_shape,
        interpolation=like.interpolation,
        rows=sampling.samples,
        shard_rows=sampling.batch_size,
        chunk_rows=sampling.batch_size,
        fingerprint=denoiser.digest,
        settings=sampling_settings(process, sampling, clip_range, seed),
    )
    return FunctasetPlan(header, encode, runtime.progress)


def train_features(
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: FrechetConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the network behind `frechet_distance_convnet` on the real training images; nothing to do for Inception."""
    if config.features == "inception":
        return Weights({}), pd.DataFrame({"step": []})
    network, history = train_feature_network(
        train_images,
        validation_images,
        config.feature_network,
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("feature_network")),
    )
    return pack_feature_network(network, len(train_images.classes)), history


def draw_training_curves(field: pd.DataFrame, classifier: pd.DataFrame, denoiser: pd.DataFrame) -> Figure:
    """All metrics of the three trainings over their steps."""
    histories = {"field": field, "classifier": classifier, "denoiser": denoiser}
    return training_curves({name: history.drop(columns="seconds") for name, history in histories.items()})


def draw_latent_channels(statistics: Weights) -> Figure:
    """Mean and standard deviation of the latent channels (Fig. 8)."""
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config).moments["vector"]
    return latent_statistics_figure(moments.mean, moments.std)


def collect_metrics(*parts: Metrics) -> Metrics:
    """All metrics of a variant in one file, and under `details` what each was measured on."""
    values = {name: value for part in parts for name, value in part.items() if name != "details"}
    return {**values, "details": {name: text for part in parts for name, text in part["details"].items()}}
