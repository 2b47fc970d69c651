"""Nodes of `functaset_build`: each returns a plan, which the functaset's dataset carries out shard by shard."""

import torch

from spatial_functa_pipeline.config.block import Switch
from spatial_functa_pipeline.config.functaset import FunctasetConfig, StorageType
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, unpack_encoder

Store = tuple[int, int, int, StorageType, Switch]
"""What matters of `FunctasetConfig` for images that are not trained on: `shard_rows`, `chunk_rows`, `encode_batch`,
`storage_type` and `mirror_held_out`.
"""


def build_train_functaset(
    images: Images, encoder: Weights, dataset: str, runtime: RuntimeConfig, config: FunctasetConfig, seed: int
) -> FunctasetPlan:
    """Encode the training images and their augmented copies, drawn from `seed`."""
    return _plan(images, encoder, dataset, "train", runtime, config, seed)


def build_validation_functaset(
    images: Images, encoder: Weights, dataset: str, runtime: RuntimeConfig, *store: *Store
) -> FunctasetPlan:
    """Encode the validation images; of the parameters only those of `Store` matter."""
    return _plan(images, encoder, dataset, "validation", runtime, _unaugmented(*store))


def build_test_functaset(
    images: Images, encoder: Weights, dataset: str, runtime: RuntimeConfig, *store: *Store
) -> FunctasetPlan:
    """Encode the test images; of the parameters only those of `Store` matter."""
    return _plan(images, encoder, dataset, "test", runtime, _unaugmented(*store))


def _unaugmented(
    shard_rows: int, chunk_rows: int, encode_batch: int, storage_type: StorageType, mirror: Switch
) -> FunctasetConfig:
    return FunctasetConfig(
        augmented_copies=0,
        mirror_images=bool(mirror),
        shard_rows=shard_rows,
        chunk_rows=chunk_rows,
        encode_batch=encode_batch,
        storage_type=storage_type,
    )


def _plan(
    images: Images,
    encoder: Weights,
    dataset: str,
    split: str,
    runtime: RuntimeConfig,
    config: FunctasetConfig,
    seed: int = 0,
) -> FunctasetPlan:
    return plan_functaset(
        images,
        unpack_encoder(encoder, torch.device("cpu")),
        config,
        dataset=dataset,
        split=split,
        copies=config.augmented_copies,
        fingerprint=encoder.digest,
        seed=seed,
        runtime=runtime,
    )
