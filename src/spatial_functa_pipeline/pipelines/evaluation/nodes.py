"""Nodes of `evaluation`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config import DataConfig, FrechetConfig, RuntimeConfig, SamplingConfig
from spatial_functa_pipeline.datasets.images import Images
from spatial_functa_pipeline.datasets.weights import Weights
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.functasets.batches import consecutive_batches
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset, FunctasetHeader, FunctasetPlan, Rows
from spatial_functa_pipeline.metrics.features import (
    ConvNetFeatures,
    FeatureExtractor,
    InceptionFeatures,
    feature_moments,
    metric_name,
)
from spatial_functa_pipeline.metrics.frechet import frechet_distance
from spatial_functa_pipeline.metrics.image_quality import (
    mean_psnr,
    pca_psnr,
    per_image_mse,
    psnr,
    psnr_of_mean_mse,
)
from spatial_functa_pipeline.models.diffusion import sample
from spatial_functa_pipeline.pipelines.evaluation.figures import (
    latent_statistics_figure,
    reconstruction_figure,
    sample_figure,
    samples_to_draw,
    training_curves,
)
from spatial_functa_pipeline.pipelines.weights import (
    pack_feature_network,
    unpack_classifier,
    unpack_denoiser,
    unpack_feature_network,
    unpack_field,
)
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import accuracy
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.reporting import mlflow_report
from spatial_functa_pipeline.training.seeding import derive_seed

Metrics = dict[str, Any]
_BATCH = 64
_PCA_IMAGES = 10_000
_PCA_NUMBERS = 4096
"""Patches of more numbers have a covariance that takes longer to decompose than this reference point is worth."""
_NO_CLASS = -1
_SHARD_SAMPLES = 1000
"""Samples are stored, and their noise is seeded, in shards of this size, whatever the batch size."""


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
    mse, shown = [], []
    for start, reconstructions in _decoded(test_functaset, decoder):
        mse.append(per_image_mse(reconstructions, test_images.batch(range(start, start + len(reconstructions)))))
        shown.append(reconstructions[: max(0, figure_images - start)])
    mse, shown = torch.cat(mse), torch.cat(shown)
    where = f"test images, seed {seed}, dB"
    metrics = {"psnr": mean_psnr(mse).item(), "psnr_of_mean_mse": psnr_of_mean_mse(mse).item()}
    details = dict.fromkeys(metrics, f"{len(mse)} {where}")
    spec = decoder.spec
    patch = tuple(n // s for n, s in zip(spec.resolution, spec.grid, strict=True))
    numbers = torch.Size(patch).numel() * spec.channels
    if numbers <= _PCA_NUMBERS:
        train, test = (range(min(_PCA_IMAGES, len(images))) for images in (train_images, test_images))
        components = min(spec.latent_channels, numbers)
        metrics["psnr_pca"] = pca_psnr(train_images.batch(train), test_images.batch(test), patch, components)
        details["psnr_pca"] = (
            f"{len(test)} {where}: PCA of {'×'.join(map(str, patch))} patches of {len(train)} training images, "
            f"{components} components"
        )
    metrics["details"] = details
    return metrics, reconstruction_figure(test_images.batch(range(len(shown))), shown, psnr(mse[: len(shown)]))


def evaluate_classifier(test_functaset: Functaset, classifier: Weights, seed: int, runtime: RuntimeConfig) -> Metrics:
    """Top-1 accuracy on the test set, once, of the classifier that was chosen on the validation set."""
    model, normaliser = unpack_classifier(classifier, resolve_device(runtime.device))
    return {
        "top1_accuracy": accuracy(model, normaliser, test_functaset),
        "details": {"top1_accuracy": f"{len(test_functaset)} test images, seed {seed}"},
    }


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

    Classes take turns; the label of an unconditional sample is −1.
    """
    device = resolve_device(runtime.device)
    model, normaliser, process = unpack_denoiser(denoiser, device)
    like = train_functaset.header

    def encode(start: int, stop: int) -> Rows:
        labels = torch.arange(start, stop) % data.num_classes if process.conditional else None
        latents = sample(
            model,
            process,
            sampling.model_copy(update={"samples": stop - start}),
            labels,
            like.latent_shape,
            normaliser.clip_range.item(),
            derive_seed(seed, "samples", start),
            device,
            runtime.progress,
        )
        latents = normaliser.inverse(latents.to(device)).cpu().numpy()
        return Rows.of_samples(latents, np.full(stop - start, _NO_CLASS) if labels is None else labels.numpy())

    header = FunctasetHeader(
        dataset=dataset,
        split="samples",
        latent_shape=like.latent_shape,
        interpolation=like.interpolation,
        rows=sampling.samples,
        shard_rows=_SHARD_SAMPLES,
        chunk_rows=_SHARD_SAMPLES,
        fingerprint=denoiser.digest,
    )
    return FunctasetPlan(header, encode, progress=False)


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
        seed=seed,
        runtime=runtime,
        checkpoint=checkpoint,
        report=mlflow_report("feature_network"),
    )
    return pack_feature_network(network, len(train_images.classes)), history


def evaluate_samples(
    samples: Functaset,
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    field: Weights,
    feature_network: Weights,
    sampling: SamplingConfig,
    config: FrechetConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, Figure]:
    """Fréchet distance of the decoded samples to the real test images, beside its two reference points; a figure.

    The reference points are real training images (the floor: what samples as good as real images would score) and
    reconstructions of the test images (what the field alone costs). N of each set stands beside its number.
    """
    device = resolve_device(runtime.device)
    decoder = unpack_field(field, device)
    extractor = _extractor(config, feature_network, device)
    test = feature_moments(extractor, _batches(test_images, len(test_images)))
    sets = {
        "": feature_moments(extractor, (images for _, images in _decoded(samples, decoder))),
        "_train_images": feature_moments(extractor, _batches(train_images, min(len(samples), len(train_images)))),
        "_reconstructions": feature_moments(extractor, (images for _, images in _decoded(test_functaset, decoder))),
    }
    name = metric_name(extractor.name)
    labels = None if (samples.labels == _NO_CLASS).all() else torch.from_numpy(samples.labels)
    classes = "unconditional" if labels is None else f"guidance {sampling.guidance_scale}, classes in turn"
    how = f"samples by {sampling.sampler} in {sampling.steps} steps, {classes}"
    weights = f", weights {extractor.weights_sha256}" if isinstance(extractor, InceptionFeatures) else ""
    subject = {"": how, "_train_images": "real training images", "_reconstructions": "reconstructed test images"}
    metrics: Metrics = {f"{name}{suffix}": frechet_distance(moments, test) for suffix, moments in sets.items()}
    metrics["details"] = {
        f"{name}{suffix}": f"{moments.count} {subject[suffix]}, against {test.count} test images, seed {seed}{weights}"
        for suffix, moments in sets.items()
    }
    shown = samples_to_draw(samples.labels)
    with torch.no_grad():
        images = decoder.decode(samples.batch(shown).to(device)).cpu()
    return metrics, sample_figure(images, None if labels is None else labels[shown], test_images.classes)


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


def _extractor(config: FrechetConfig, feature_network: Weights, device: torch.device) -> FeatureExtractor:
    if config.features == "inception":
        return InceptionFeatures(config.inception_weights, device)
    return ConvNetFeatures(unpack_feature_network(feature_network, device))


def _batches(images: Images, count: int) -> Iterator[Tensor]:
    for start in range(0, count, _BATCH):
        yield images.batch(range(start, min(start + _BATCH, count)))


def _decoded(functaset: Functaset, field: SpatialField) -> Iterator[tuple[int, Tensor]]:
    """First row and decoded images `(B, *resolution, channels)` of each batch, on the CPU, not clamped."""
    device, start = next(field.parameters()).device, 0
    for latents, _ in consecutive_batches(functaset, _BATCH):
        with torch.no_grad():
            yield start, field.decode(latents.to(device)).cpu()
        start += len(latents)
