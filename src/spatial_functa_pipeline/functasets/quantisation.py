"""Uniform quantisation of latents at b bits per latent dimension (App. C.4.4)."""

from __future__ import annotations

import re

import numpy as np

MISSING = 255
"""A code that stands for no value: what Zarr reads where there is nothing. At 8 bits it costs one of 256 levels."""


def bits_of(storage_type: str) -> int | None:
    """b of the storage type `uint<b>`; None for floating-point types."""
    found = re.fullmatch(r"uint([2-8])", storage_type)
    return int(found[1]) if found else None


def quantise(latents: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of `latents` (n, *grid, c) on 2^b levels (255 for b = 8), evenly spaced over each dimension's own range.

    Returns:
        codes, uint8 (n, *grid, c); low and high, float32 (*grid, c): the range of each dimension over the n latents.
    """
    low, high = latents.min(axis=0), latents.max(axis=0)
    step = _step(low, high, bits)
    codes = np.rint(np.divide(latents - low, step, out=np.zeros(latents.shape, np.float32), where=step > 0))
    return codes.astype(np.uint8), low.astype(np.float32), high.astype(np.float32)


def dequantise(codes: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int) -> np.ndarray:
    """Latents, float32 like `codes`; `low` and `high` are broadcast. Off by half a level, range/(2·levels − 2), at most."""
    return low + codes * _step(low, high, bits)


def _step(low: np.ndarray, high: np.ndarray, bits: int) -> np.ndarray:
    return ((high - low) / np.float32(min(2**bits, MISSING) - 1)).astype(np.float32)
