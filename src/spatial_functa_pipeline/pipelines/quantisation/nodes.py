"""Nodes of `quantisation`: each returns a plan, or, without bits, the encoded functaset itself, which is then referred to."""

import torch

from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.quantisation import QuantisationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.functasets.requantising import Pictures, quantised
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, unpack_encoder


def quantise_train_functaset(
    encoded: Functaset,
    images: Images,
    encoder: Weights,
    config: QuantisationConfig,
    runtime: RuntimeConfig,
    functaset: FunctasetConfig,
    seed: int,
) -> FunctasetPlan | Functaset:
    """Quantise the training latents, over the ranges of those that are not distorted; images and encoder tell their PSNR."""
    pictures = Pictures(images, functaset.augmentation, seed)
    return quantised(encoded, config.bits, pictures, unpack_encoder(encoder, torch.device("cpu")), runtime)


def quantise_other_functaset(
    encoded: Functaset,
    images: Images,
    encoder: Weights,
    config: QuantisationConfig,
    runtime: RuntimeConfig,
    train_functaset: Functaset,
) -> FunctasetPlan | Functaset:
    """Quantise the latents of another split, over the ranges of the training latents."""
    cpu = torch.device("cpu")
    return quantised(encoded, config.bits, Pictures(images), unpack_encoder(encoder, cpu), runtime, train_functaset)
