"""What tells one set of images from another."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.images.images import Images

_SAMPLED = 16


def describe_images(images: Images) -> dict[str, Any]:
    """`count`, `classes`, `resolution` and `channels`, and a `digest` of all labels and of some images, evenly spaced.

    It is cheap, even where images must be decoded. It notices other images, another order and another number of them, not
    a change of a single one. Raises ImagesError if one of those cannot be decoded.
    """
    return {
        "count": len(images),
        "classes": list(images.classes),
        "resolution": list(images.resolution),
        "channels": images.channels,
        "digest": short_digest(_content(images)),
    }


def _content(images: Images) -> Iterator[bytes]:
    yield np.ascontiguousarray(images.labels).tobytes()
    rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLED).astype(np.int64))
    yield images.batch(rows).numpy().tobytes()
