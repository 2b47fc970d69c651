"""Files to pixels."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spatial_functa_pipeline.images.boxes import FILTER, ChooseBox
from spatial_functa_pipeline.images.images import ImagesError


class UndecodableImageError(ImagesError):
    """A file that is no picture, or a broken one, or one whose numbers have no known scale."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot decode the image {self.path} ({self.reason}): replace or remove the file"


_BACKGROUND = "white"
"""Behind transparent pixels: viewers and pages have it, and dark drawings, which are the usual ones, would vanish on black."""
_MODES = {1: "L", 3: "RGB"}
SIXTEEN_BITS = 2**16 - 1
"""The largest grey value of 16 bits."""


@dataclass(frozen=True)
class ImageFiles:
    """Decodes image files: row indices (B,) → uint8 (B, *resolution, channels).

    `paths` is one array of bytes: unlike a list of strings it is not copied, reference by reference, into each forked
    worker, which matters for a million files.
    """

    paths: np.ndarray
    resolution: tuple[int, int]
    channels: int = 3
    white: int = SIXTEEN_BITS

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        return self.boxed(indices, [None] * len(indices))

    def boxed(self, indices: np.ndarray, choices: Sequence[ChooseBox | None]) -> np.ndarray:
        """As calling it, but where a choice is given, it is that box of the original picture which is resized, once."""
        return np.stack([self._read(*row) for row in zip(self.paths[indices], choices, strict=True)])

    def _read(self, path: bytes, choose: ChooseBox | None) -> np.ndarray:
        picture = decode_picture(path, self.channels, self.white)
        height, width = self.resolution
        if choose is None:
            fitted = ImageOps.fit(picture, (width, height), FILTER)
        else:
            fitted = picture.resize((width, height), FILTER, box=choose(*picture.size))
        return np.asarray(fitted).reshape(height, width, self.channels)


def decode_picture(path: bytes | str | os.PathLike[str], channels: int = 3, white: int = SIXTEEN_BITS) -> Image.Image:
    """The picture in a file, with 8 bits a channel: grey (mode L) for one channel, colour (RGB) for three.

    It is turned as its EXIF orientation says. Transparent pixels show white. Grey values of 16 bits are scaled so that
    `white` becomes 255, as do larger ones, whatever the brightest one in the picture is. Of an animation it is the first
    picture.

    Raises UndecodableImageError for a file that cannot be decoded, or holds numbers whose scale nobody knows: floats, and
    integers beyond 16 bits.
    """
    try:
        with Image.open(os.fsdecode(path)) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return opaque(_eight_bits(image, white)).convert(_MODES[channels])
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise UndecodableImageError(os.fsdecode(path), str(error) or type(error).__name__) from error


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Grey of 16 bits (Pillow's I;16, I;16B and the like, and I, of which 16 bits are used) to 8; others as they are."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose scale is not known: save it with 8 or 16 bits a channel")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > SIXTEEN_BITS:
        raise ValueError(
            f"its pixels go from {values.min()} to {values.max()}, beyond 16 bits, and their scale is not known"
        )
    return Image.fromarray(np.round(np.minimum(values, white) * (255 / white)).astype(np.uint8))


def brightest_of_sixteen_bits(paths: np.ndarray) -> int | None:
    """The largest grey value in those of the files that hold 16 bits; None if none does. Broken files are passed over."""
    brightest = None
    for path in paths:
        with suppress(Exception), Image.open(os.fsdecode(path)) as image:  # Pillow's decoders raise almost anything
            if image.mode.startswith("I"):
                brightest = max(brightest or 0, int(np.asarray(image).max()))
    return brightest


def opaque(image: Image.Image) -> Image.Image:
    """Without transparency: alpha, a transparent colour or palette entry show the background."""
    if not image.has_transparency_data:
        return image
    transparent = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), transparent)


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
