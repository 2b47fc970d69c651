"""Files to pixels."""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spatial_functa_pipeline.images.images import ImagesError


@dataclass(frozen=True)
class ImageFiles:
    """Decodes image files: row indices (B,) → uint8 (B, *resolution, 3).

    `paths` is one array of bytes: unlike a list of strings it is not copied, reference by reference, into each forked
    worker, which matters for a million files.
    """

    paths: np.ndarray
    resolution: tuple[int, int]

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._decode(Path(os.fsdecode(path))) for path in self.paths[indices]])

    def _decode(self, path: Path) -> np.ndarray:
        height, width = self.resolution
        try:
            with Image.open(path) as image:
                return np.asarray(ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS))
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            raise ImagesError(f"cannot decode the image {path} ({error}): replace or remove the file") from error


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, the format of MNIST and its relatives; gzipped if its name ends in `.gz`.

    The format: two zero bytes, the code of the element type (8: unsigned byte), the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the elements in C order.

    Raises:
        ImagesError: if the file is truncated or not such a file.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImagesError(f"{path} is truncated or no gzip file ({error}): remove it and get it again") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ImagesError(
            f"{path} is not an IDX file of unsigned bytes: it starts with {content[:4].hex()} instead of 000008; "
            "remove it and get it again"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ImagesError(f"{path} ends within its header: remove it and get it again")
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4).tolist()
    elements = np.frombuffer(content, np.uint8, offset=start)
    if len(elements) != np.prod(shape):
        raise ImagesError(
            f"{path} announces {'×'.join(map(str, shape))} bytes but holds {len(elements)}: remove it and get it again"
        )
    return elements.reshape(shape)
