"""Nodes of `functaset_build`: each returns a plan, which the functaset's dataset carries out shard by shard."""

import torch

from spatial_functa_pipeline.config import FunctasetConfig, RuntimeConfig
from spatial_functa_pipeline.datasets.images import Images
from spatial_functa_pipeline.datasets.weights import Weights
from spatial_functa_pipeline.functasets.build import plan_functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.pipelines.weights import unpack_field


def build_train_functaset(
    images: Images, field: Weights, config: FunctasetConfig, dataset: str, seed: int, runtime: RuntimeConfig
) -> FunctasetPlan:
    """Encode the training images and their augmented copies."""
    return _plan(images, field, config, dataset, "train", config.augmented_copies, seed, runtime)


def build_validation_functaset(
    images: Images, field: Weights, config: FunctasetConfig, dataset: str, seed: int, runtime: RuntimeConfig
) -> FunctasetPlan:
    """Encode the validation images."""
    return _plan(images, field, config, dataset, "validation", 0, seed, runtime)


def build_test_functaset(
    images: Images, field: Weights, config: FunctasetConfig, dataset: str, seed: int, runtime: RuntimeConfig
) -> FunctasetPlan:
    """Encode the test images."""
    return _plan(images, field, config, dataset, "test", 0, seed, runtime)


def _plan(
    images: Images,
    field: Weights,
    config: FunctasetConfig,
    dataset: str,
    split: str,
    copies: int,
    seed: int,
    runtime: RuntimeConfig,
) -> FunctasetPlan:
    return plan_functaset(
        images,
        unpack_field(field, torch.device("cpu")),
        config,
        dataset=dataset,
        split=split,
        copies=copies,
        fingerprint=field.digest,
        seed=seed,
        runtime=runtime,
    )
