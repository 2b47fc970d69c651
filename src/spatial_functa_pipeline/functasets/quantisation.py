"""Uniform quantisation of latents at b bits per latent dimension (App. C.4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

MISSING = 255
"""What Zarr reads where there are no codes. It is a code at 8 bits alone, and then that of the last of 256 bins."""


@dataclass(frozen=True)
class Ranges:
    """The lowest and the highest value of each latent dimension over a set of latents, float32 `(*grid, c)`."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, latents: np.ndarray) -> Self:
        """Of latents `(n, *grid, c)`."""
        return cls(latents.min(axis=0).astype(np.float32), latents.max(axis=0).astype(np.float32))

    def joined(self, other: Self) -> Self:
        """Of both sets together: exact, in whichever order sets are joined."""
        return type(self)(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class Quantiser:
    """Codes of latents, and latents of codes: each dimension's range is cut into 2^b bins of one width.

    A code is the number of a bin, and stands for its centre; a value beyond the range counts to the bin at that end. The
    paper says that bins are uniform and per dimension, not over which set a range is taken nor what a bin stands for.
    """

    def __init__(self, ranges: Ranges, bits: int) -> None:
        """Raises ValueError if codes of so many bits are not one byte."""
        if not 1 <= bits <= 8:
            raise ValueError(f"latents are quantised at 1 to 8 bits, not at {bits}")
        self._low, self._last = ranges.low, 2**bits - 1
        # In float64: the width of a float32 range may be too large for float32, its bins' is not.
        self._width = ((ranges.high.astype(np.float64) - ranges.low) / 2**bits).astype(np.float32)
        self._centre = np.where(self._width > 0, ranges.low + self._width / 2, ranges.low)

    def codes(self, latents: np.ndarray) -> np.ndarray:
        """Codes, uint8, of latents `(n, *grid, c)`. A dimension that never varies has the code 0."""
        bins = np.zeros(latents.shape, np.float32)
        np.divide(latents - self._low, self._width, out=bins, where=self._width > 0)
        return np.clip(np.floor(bins, out=bins), 0, self._last, out=bins).astype(np.uint8)

    def latents(self, codes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Latents, float32, of codes `(n, *grid, c)`, in `out` if it is given.

        Within the range they are off by half a bin at most, range/2^(b + 1).
        """
        out = np.multiply(codes, self._width, out=out, dtype=np.float32)
        return np.add(out, self._centre, out=out)
