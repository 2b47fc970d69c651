"""Features of images, real and decoded, that the scores of generated images compare."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import FrechetConfig
from spatial_functa_pipeline.evaluation.decoding import BATCH, decode, decoded
from spatial_functa_pipeline.evaluation.linear_code import PCA_IMAGES, pca_patch
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, Moments
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.features import (
    ConvNetFeatures,
    FeatureExtractor,
    InceptionFeatures,
    extract_features,
)
from spatial_functa_pipeline.metrics.image_quality import PatchPCA
from spatial_functa_pipeline.models.weights import Weights, unpack_feature_network
from spatial_functa_pipeline.training.seeding import step_generator


def feature_extractor(config: FrechetConfig, network: Weights, device: torch.device) -> FeatureExtractor:
    """Inception's features, or those of the small `network` that was trained on the real images."""
    if config.features == "inception":
        return InceptionFeatures(config.inception_weights, device)
    return ConvNetFeatures(unpack_feature_network(network, device))


def real_features(
    extractor: FeatureExtractor, train_images: Images, test_images: Images, limit: int | None = None
) -> dict[str, Tensor]:
    """Features of the real images, `train (N, F)` and `test (M, F)`, of at most `limit` images each."""
    sets = {"train": train_images, "test": test_images}
    return {name: extract_features(extractor, images.batches(BATCH, limit)) for name, images in sets.items()}


def reference_features(
    extractor: FeatureExtractor,
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    field: SpatialField,
    statistics: LatentStatistics,
    count: int,
    seed: int,
) -> dict[str, Tensor]:
    """Features of what samples should be compared with, each `(≤ count, F)`.

    `reconstructions`: of the test images, what the field alone costs. `pca_codes`: the test images from linear codes with as
    many numbers (`PatchPCA`; left out where patches are too large for it). `noise`: decoded Gaussian noise with the mean
    and standard deviation of each number of the training latents, what a denoiser starts from.
    """
    sets = {"reconstructions": decoded(test_functaset, field, count)}
    if (patch := pca_patch(field.spec)) is not None:
        sides, components = patch
        code = PatchPCA(train_images.batch(range(min(PCA_IMAGES, len(train_images)))), sides, components)
        sets["pca_codes"] = (code.reconstruct(images) for images in test_images.batches(BATCH, count))
    sets["noise"] = _decoded_noise(statistics.moments["array"], field, count, seed)
    return {name: extract_features(extractor, images) for name, images in sets.items()}


def _decoded_noise(moments: Moments, field: SpatialField, count: int, seed: int) -> Iterator[Tensor]:
    """`count` images of Gaussian noise with the moments `(*grid, c)`, as `decoded` yields them."""
    for start in range(0, count, BATCH):
        generator = step_generator(seed, "noise", start)
        noise = torch.randn((min(BATCH, count - start), *moments.mean.shape), generator=generator)
        yield decode(field, (moments.mean + moments.std * noise).float())
