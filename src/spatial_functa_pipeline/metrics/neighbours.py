"""The nearest training images of images in pixel space (App. C.2), for 50,000 against 50,000 of them.

|q − t|² = |q|² + |t|² − 2 q·t is a matrix product, taken block by block, so that memory stays bounded whatever the numbers
of images; each training image is read once. The product is in float32, so a few more candidates than neighbours are kept, and
these are compared again exactly, in integers: copies have distance 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spatial_functa_pipeline.compute import float32_products
from spatial_functa_pipeline.images.pixels import unit_images

_SPARE = 3
"""Candidates beyond the neighbours asked for: the rounding of float32 may exchange images of almost equal distance."""
_BLOCK_BYTES = 64 * 2**20
_QUERIES = 2048


@dataclass(frozen=True)
class Neighbours:
    """The k nearest training images of each of N images, the nearest first.

    `rows (N, k)`: their positions among the training images; of equally near ones the first. `distances (N, k)`: root mean
    square difference of pixel values on the scale [0, 1], float64.
    """

    rows: np.ndarray
    distances: np.ndarray


@float32_products()
def nearest_images(
    images: Tensor,
    read: Callable[[np.ndarray], Tensor],
    count: int,
    neighbours: int = 3,
    device: torch.device | str = "cpu",
) -> Neighbours:
    """The nearest of `count` training images for each of `images`.

    Args:
        images: `(N, *resolution, channels)`, of `comparable_images`.
        read: maps row numbers `(B,)` to training images `(B, *resolution, channels)`, of `comparable_images`. Called for
            every row once, in order, and again for the candidates.
        count: of the training images.
        neighbours: k.
        device: where the products are computed.

    Raises ValueError if there are fewer than `neighbours` training images, or images of different shapes or types.
    """
    if not 1 <= neighbours <= count:
        raise ValueError(f"cannot find {neighbours} nearest of {count} training images")
    queries = images.flatten(start_dim=1)
    candidates = _candidates(queries, lambda rows: _rows(read, rows, images), count, neighbours + _SPARE, device)
    size = max(1, _BLOCK_BYTES // (4 * candidates.shape[1] * queries.shape[1]))
    rows, distances = [], []
    for start in range(0, len(queries), size):
        wanted, positions = candidates[start : start + size].unique(return_inverse=True)
        nearest = _rows(read, wanted.numpy(), images).int()[positions]  # (n, candidates, D)
        squares = (queries[start : start + size, None].int() - nearest).square().sum(dim=-1)  # in int64
        # Candidates are in the order of their rows, and the sort is stable.
        order = squares.argsort(dim=1, stable=True)[:, :neighbours]
        rows.append(candidates[start : start + size].gather(1, order))
        distances.append(squares.gather(1, order))
    root_mean_square = (torch.cat(distances).double() / queries.shape[1]).sqrt() / 255
    return Neighbours(torch.cat(rows).numpy(), root_mean_square.numpy())


def comparable_images(images: Tensor, max_side: int | None = None) -> Tensor:
    """Images `(B, *resolution, channels)`, uint8 or floats, rounded to uint8 as in an image file.

    Those with more than `max_side` pixels along an axis are averaged down to `max_side` there.
    """
    levels = unit_images(images).clamp(0, 1) * 255
    resolution = tuple(levels.shape[1:-1])
    if max_side is not None and max(resolution) > max_side:
        smaller = [min(side, max_side) for side in resolution]
        levels = F.interpolate(levels.float().movedim(-1, 1), smaller, mode="area").movedim(1, -1)
    return levels.round().to(torch.uint8)


def _candidates(
    queries: Tensor, read: Callable[[np.ndarray], Tensor], count: int, keep: int, device: torch.device | str
) -> Tensor:
    """Rows `(N, ≤ keep)` of the training images that are nearest as far as float32 can tell, in ascending order."""
    keep = min(keep, count)
    block = max(keep, _BLOCK_BYTES // (4 * queries.shape[1]))
    best = torch.full((len(queries), keep), torch.inf)
    rows = torch.zeros((len(queries), keep), dtype=torch.int64)
    for start in range(0, count, block):
        train = _centred(read(np.arange(start, min(start + block, count))), device)  # (T, D)
        norms = train.square().sum(dim=1)
        for first in range(0, len(queries), _QUERIES):
            part = slice(first, first + _QUERIES)
            # |t|² − 2 q·t: |q|² changes no order
            scores = torch.addmm(norms, _centred(queries[part], device), train.T, alpha=-2)
            found = scores.topk(min(keep, len(train)), dim=1, largest=False)
            scores = torch.cat([best[part], found.values.cpu()], dim=1)
            merged = torch.cat([rows[part], start + found.indices.cpu()], dim=1)
            best[part], order = scores.topk(keep, dim=1, largest=False)
            rows[part] = merged.gather(1, order)
    return rows.sort(dim=1).values


def _centred(images: Tensor, device: torch.device | str) -> Tensor:
    """uint8 to float32 around 0: smaller numbers lose less to rounding."""
    return images.to(device).float() - 128


def _rows(read: Callable[[np.ndarray], Tensor], rows: np.ndarray, like: Tensor) -> Tensor:
    """Training images `rows`, flat: uint8 `(B, D)`."""
    images = read(rows)
    if images.shape[1:] != like.shape[1:] or images.dtype != torch.uint8 or like.dtype != torch.uint8:
        raise ValueError(
            f"needs uint8 images of one shape, got {tuple(like.shape[1:])} ({like.dtype}) and training images of "
            f"{tuple(images.shape[1:])} ({images.dtype})"
        )
    return images.flatten(start_dim=1)
