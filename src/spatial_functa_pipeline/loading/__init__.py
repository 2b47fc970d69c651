"""Rows of images and functasets as batches for a training loop, whose first step may be any."""

from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches, consecutive_batches
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.loading.ordering import WHOLE, Part, epoch_batches

__all__ = [
    "WHOLE",
    "FunctasetBatches",
    "ImageBatches",
    "Part",
    "consecutive_batches",
    "epoch_batches",
]
