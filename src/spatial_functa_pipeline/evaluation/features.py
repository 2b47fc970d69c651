"""Features of images, real and decoded, that the scores of generated images compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import FrechetConfig, ScoresConfig
from spatial_functa_pipeline.evaluation.decoding import BATCH, decode, decoded
from spatial_functa_pipeline.evaluation.linear_code import PCA_IMAGES, pca_patch
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.rotation import rotated_back
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.comparison import FeatureSet
from spatial_functa_pipeline.metrics.features import ConvNetFeatures, FeatureExtractor, InceptionFeatures
from spatial_functa_pipeline.metrics.frechet import FeatureMoments
from spatial_functa_pipeline.metrics.image_quality import PatchPCA
from spatial_functa_pipeline.models.weights import Weights, unpack_feature_network
from spatial_functa_pipeline.training.seeding import step_generator


def feature_extractor(config: FrechetConfig, network: Weights, device: torch.device) -> FeatureExtractor:
    """Inception's features, or those of the small `network` that was trained on the real images."""
    if config.features == "inception":
        return InceptionFeatures(config.inception_weights, device)
    return ConvNetFeatures(unpack_feature_network(network, device))


def training_images(
    train_images: Images, validation_images: Images, scores: ScoresConfig, limit: int | None = None
) -> Iterator[Tensor]:
    """The training images that samples are compared with, uint8 `(≤ BATCH, *resolution, channels)` at a time.

    The paper takes distances to the training data (App. C.2): those that were published. Of them the validation images are
    held out here, so that they come after the others.
    """
    yield from train_images.batches(BATCH, limit)
    yield from validation_images.batches(BATCH, held_out(train_images, validation_images, scores, limit))


def held_out(train_images: Images, validation_images: Images, scores: ScoresConfig, limit: int | None = None) -> int:
    """How many of the `training_images` are validation images."""
    if not scores.held_out_in_reference:
        return 0
    left = len(validation_images) if limit is None else max(0, limit - len(train_images))
    return min(len(validation_images), left)


def real_features(
    extractor: FeatureExtractor,
    train_images: Images,
    validation_images: Images,
    test_images: Images,
    scores: ScoresConfig,
) -> dict[str, FeatureSet]:
    """Features of the real images that samples are compared with, `train` and `test`."""
    limit, pairs = scores.reference_images, scores.pair_images
    return {
        "train": FeatureSet.of(extractor, training_images(train_images, validation_images, scores, limit), pairs),
        "test": FeatureSet.of(extractor, test_images.batches(BATCH, limit), pairs),
    }


def reference_features(
    extractor: FeatureExtractor,
    train_images: Images,
    validation_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Encoder,
    statistics: LatentStatistics,
    scores: ScoresConfig,
    count: int,
    seed: int,
) -> dict[str, FeatureSet]:
    """Features of what samples should be compared with, of at most `count` images each: the Fréchet distance depends on it.

    `train_images`, `test_images`: real ones. `reconstructions`: of the test images, what the encoder alone costs. `pca_codes`:
    the test images from linear codes with as many numbers (`PatchPCA`; left out where patches are too large for it).
    `noise`: decoded Gaussian noise with the mean and standard deviation of each number of the training latents, what a
    denoiser starts from; where latents are rotated, of each number of the rotated ones, rotated back.
    """
    sets = {
        "train_images": training_images(train_images, validation_images, scores, count),
        "test_images": test_images.batches(BATCH, count),
        "reconstructions": decoded(test_functaset, encoder, count),
    }
    if (patch := pca_patch(encoder.spec)) is not None:
        sides, components = patch
        code = PatchPCA(train_images.batch(range(min(PCA_IMAGES, len(train_images)))), sides, components)
        sets["pca_codes"] = (code.reconstruct(images) for images in test_images.batches(BATCH, count))
    sets["noise"] = _decoded_noise(statistics, encoder, count, seed)
    return {name: FeatureSet.of(extractor, images, scores.pair_images) for name, images in sets.items()}


def pack_features(sets: Mapping[str, FeatureSet], extractor: FeatureExtractor, **facts: int) -> Weights:
    """Sets of features to be stored, with the name of their extractor and `facts` about them."""
    tensors = {
        f"{name}.{part}": tensor
        for name, features in sets.items()
        for part, tensor in {**features.moments.tensors(), "paired": features.paired}.items()
    }
    return Weights(tensors, {"features": extractor.name, **facts})


def unpack_features(stored: Weights) -> dict[str, FeatureSet]:
    """The sets that `pack_features` has packed."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.tensors.items():
        name, _, part = key.rpartition(".")
        parts.setdefault(name, {})[part] = tensor
    return {name: FeatureSet(FeatureMoments.from_tensors(found), found["paired"]) for name, found in parts.items()}


def _decoded_noise(statistics: LatentStatistics, encoder: Encoder, count: int, seed: int) -> Iterator[Tensor]:
    """`count` images of Gaussian noise with the moments of each number, as `decoded` yields them."""
    moments, rotation = statistics.moments["array"], statistics.rotation
    for start in range(0, count, BATCH):
        generator = step_generator(seed, "noise", start)
        noise = torch.randn((min(BATCH, count - start), *moments.mean.shape), generator=generator)
        latents = (moments.mean + moments.std * noise).float()
        yield decode(encoder, latents if rotation is None else rotated_back(latents, rotation))
