"""What tells one set of images from another."""

from collections.abc import Iterator

import numpy as np

from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.images.images import Images

_SAMPLED = 16


def images_digest(images: Images) -> str:
    """Short digest of all labels and of some images, evenly spaced: cheap, even where images must be decoded.

    It notices other images, another order and another number of them, not a change of a single one.
    """
    return short_digest(_content(images))


def _content(images: Images) -> Iterator[bytes]:
    yield repr((len(images), images.resolution, images.channels, images.classes)).encode()
    yield np.ascontiguousarray(images.labels).tobytes()
    rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLED).astype(np.int64))
    yield images.batch(rows).numpy().tobytes()
