"""Pictures in memory: labelled sets of them, read when asked for, their files, their scale and their augmented copies."""

from spatial_functa_pipeline.images.augmentation import augment
from spatial_functa_pipeline.images.decoders import ImageFiles, read_idx
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images, ImagesError, UnexpectedImagesError
from spatial_functa_pipeline.images.pixels import unit_images

__all__ = [
    "ImageFiles",
    "Images",
    "ImagesError",
    "UnexpectedImagesError",
    "augment",
    "describe_images",
    "read_idx",
    "unit_images",
]
