"""Objects at random places among pieces of others: what is where has to be found (Mnih et al., 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from spatial_functa_pipeline.images.boxes import FILTER


@dataclass(frozen=True)
class ClutterProtocol:
    """How a cluttered image is put together. ours: the sizes; the protocol is that of cluttered MNIST (Mnih et al., 2014).

    Attributes:
        resolution: height and width of the canvas, in pixels.
        scale: smallest and largest side of an object, in parts of its original side.
        pieces: how many pieces of other objects there are.
        piece_size: side of a piece, in pixels. Pieces are cut from objects of the original size.
        seed: non-negative; of all that is drawn.
    """

    resolution: tuple[int, int]
    scale: tuple[float, float]
    pieces: int
    piece_size: int
    seed: int

    def require_fitting(self, side: int) -> None:
        """Raises ValueError unless objects of `side`×`side` pixels, and the pieces, fit the canvas."""
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale is written as [smallest, largest] with 0 < smallest ≤ largest, got {[low, high]}")
        if round(low * side) < 1:
            raise ValueError(f"scale {low} leaves no pixel of an object of {side}×{side}")
        if round(high * side) > min(self.resolution):
            raise ValueError(
                f"an object of {side}×{side} pixels, scaled by {high}, does not fit the canvas, resolution "
                f"{list(self.resolution)}: lower scale or raise resolution"
            )
        if self.pieces < 0 or self.seed < 0:
            raise ValueError(f"pieces and seed are not negative, got {self.pieces} and {self.seed}")
        largest = min(side, *self.resolution)
        if not 1 <= self.piece_size <= largest:
            raise ValueError(f"piece_size is from 1 to {largest} pixels, got {self.piece_size}")


@dataclass(frozen=True)
class ClutteredImages:
    """Makes cluttered images when they are asked for: row indices (B,) → uint8 (B, *resolution, 1).

    Image i shows object i, scaled and somewhere on the canvas, and pieces that are cut from others of `objects`, anywhere.
    Where they overlap, the brighter one is seen. All that is drawn derives from `(seed, first_row + i)` alone, so an image is
    the same in whichever batch, order or process it is made.

    Attributes:
        objects: uint8 (N, side, side), bright on black.
        protocol: how they are put together.
        first_row: what the first object is called, so that ranges of one set differ in what they draw.
    """

    objects: np.ndarray
    protocol: ClutterProtocol
    first_row: int = 0

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        count = len(self.objects)
        rows = np.asarray(indices)
        # As NumPy's indexing does: from the end if negative, IndexError beyond it
        return np.stack([self._image(row) for row in np.arange(count)[rows].tolist()])[..., None]

    def _image(self, row: int) -> np.ndarray:
        protocol, (height, width) = self.protocol, self.protocol.resolution
        side, piece = self.objects.shape[1], protocol.piece_size
        rng = np.random.default_rng((protocol.seed, self.first_row + row))
        canvas = np.zeros((height, width), np.uint8)

        low, high = protocol.scale
        share, *place = rng.random(3)
        scaled = round((low + (high - low) * share) * side)
        picture = Image.fromarray(self.objects[row]).resize((scaled, scaled), FILTER)
        _paste(canvas, np.asarray(picture), place)

        for other, top, left, *place in rng.random((protocol.pieces, 5)).tolist():
            source = self.objects[(row + 1 + int(other * (len(self.objects) - 1))) % len(self.objects)]
            y, x = (int(cut * (side - piece + 1)) for cut in (top, left))
            _paste(canvas, source[y : y + piece, x : x + piece], place)
        return canvas


def _paste(canvas: np.ndarray, picture: np.ndarray, place: list[float]) -> None:
    """Put a picture onto the canvas, where two numbers in [0, 1) say: top and left, in parts of the room that there is."""
    height, width = picture.shape
    top = int(place[0] * (canvas.shape[0] - height + 1))
    left = int(place[1] * (canvas.shape[1] - width + 1))
    window = canvas[top : top + height, left : left + width]
    np.maximum(window, picture, out=window)
