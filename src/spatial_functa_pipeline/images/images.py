"""The noun: a lazy set of labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.images.boxes import ChooseBox, resize_boxes


class ImagesError(RuntimeError):
    """Images cannot be read, or are not what they should be."""


class UnexpectedImagesError(ImagesError):
    """Images are not those described: `differences` is name → (described, found)."""

    def __init__(self, differences: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(differences)
        self.differences = differences

    def __str__(self) -> str:
        return "; ".join(
            f"{name} should be {described}, but the images have {found}"
            for name, (described, found) in self.differences.items()
        )


@dataclass(frozen=True)
class Images:
    """A lazy, read-only, picklable set of N labelled images.

    Attributes:
        read: maps row indices (B,) to pixels, uint8 (B, *resolution, channels).
        labels: int64 (N,), positions in `classes`.
        classes: names of the classes.
        resolution: pixels per axis.
        channels: 1 for grey, 3 for colour.
        read_boxes: as `read`, but cuts a box from each original picture that one is chosen for. None: from what `read` gives.
        reopen: opens the same images again. Where it is known, they are pickled as it, so that another process reads its
            own files.
    """

    read: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    resolution: tuple[int, ...]
    channels: int
    read_boxes: Callable[[np.ndarray, Sequence[ChooseBox | None]], np.ndarray] | None = None
    reopen: Callable[[], Images] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reopen:
            return self.reopen, ()
        return type(self), (self.read, self.labels, self.classes, self.resolution, self.channels, self.read_boxes)

    @classmethod
    def from_array(cls, pixels: np.ndarray, labels: Sequence[int] | np.ndarray, classes: Sequence[str]) -> Images:
        """Images held in memory: `pixels` uint8 (N, *resolution, channels), `labels` (N,).

        Raises:
            ValueError: if the pixels are not uint8 or their number is not that of the labels.
        """
        if pixels.dtype != np.uint8 or len(pixels) != len(labels):
            raise ValueError(
                f"expected uint8 pixels and one label per image, got {pixels.dtype}, "
                f"{len(pixels)} images and {len(labels)} labels"
            )
        *resolution, channels = pixels.shape[1:]
        return cls(
            read=partial(_rows_of, np.ascontiguousarray(pixels)),
            labels=np.asarray(labels, np.int64),
            classes=tuple(classes),
            resolution=tuple(resolution),
            channels=channels,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def require(self, data: DataConfig) -> None:
        """Raises UnexpectedImagesError if these are not the images that `data` describes."""
        found = {"resolution": self.resolution, "channels": self.channels, "num_classes": len(self.classes)}
        described = {name: value for name in found if (value := getattr(data, name)) is not None}
        if differences := {name: (value, found[name]) for name, value in described.items() if value != found[name]}:
            raise UnexpectedImagesError(differences)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Pixels of the rows `indices` (B,) in the order asked for: uint8 (B, *resolution, channels).

        Raises:
            IndexError: if there is no such row.
            ImagesError: if an image cannot be decoded.
        """
        return torch.from_numpy(self.read(np.asarray(indices)))

    def boxes(self, indices: np.ndarray, choices: Sequence[ChooseBox | None]) -> Tensor:
        """As `batch`, but where a choice is given, the picture is that box of its original, resized.

        The original of a picture in memory is itself; that of a file is what is in the file, before it is cropped.
        """
        if self.read_boxes:
            return torch.from_numpy(self.read_boxes(indices, choices))
        return torch.from_numpy(resize_boxes(self.read(indices), choices))

    def batches(self, size: int, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` images (None: all), uint8 `(≤ size, *resolution, channels)` at a time, in order."""
        count = len(self) if count is None else min(count, len(self))
        for start in range(0, count, size):
            yield self.batch(range(start, min(start + size, count)))


def _rows_of(pixels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return pixels[indices]
