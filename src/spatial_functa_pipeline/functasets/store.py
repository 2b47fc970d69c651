"""A functaset opened for reading."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.errors import IncompleteFunctasetError, OtherImagesError, SchemaVersionError
from spatial_functa_pipeline.functasets.format import SCHEMA_VERSION, FunctasetHeader, read_attributes
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.quantisation import Quantiser, Ranges
from spatial_functa_pipeline.functasets.shards import array_of, read_ranges, read_rows
from spatial_functa_pipeline.images.augmentation import MIRRORED, CopyKind
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images

MEMORY_LIMIT = 2 * 2**30
"""Bytes of latents, as they are stored, that each process holds in memory; more are streamed."""


class Functaset:
    """A complete functaset, opened for reading.

    Nothing is read before it is used; the columns of one number per row are then kept. It is pickled as its location,
    so that each process opens its own files.
    """

    def __init__(self, url: str | Path, memory_limit: int = MEMORY_LIMIT) -> None:
        """Use `Functaset.open`."""
        self.location = Location(url)
        self.header, attributes = _complete(self.location)
        while self.header.refers_to is not None:
            self.location = self.location.follow(self.header.refers_to)
            self.header, attributes = _complete(self.location)
        self.mean_psnr: float | None = attributes["mean_psnr"]
        self.classes: tuple[str, ...] = tuple(attributes["classes"])
        self._memory_limit = memory_limit
        self._group = zarr.open_group(self.location.store(read_only=True), mode="r")

    @classmethod
    def open(cls, url: str | Path, memory_limit: int = MEMORY_LIMIT) -> Functaset:
        """Open the functaset at `url`; `batch` holds its latents in memory if they are at most `memory_limit` bytes.

        Raises:
            MissingFunctasetError: there is no functaset at `url`.
            IncompleteFunctasetError: it has not been finished.
            SchemaVersionError: it is of another schema version.
        """
        return cls(url, memory_limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location.url, self._memory_limit)

    def __len__(self) -> int:
        return self.header.rows

    def __repr__(self) -> str:
        return f"Functaset({self.location.url!r}, {len(self)} × {self.latent_shape})"

    @property
    def latent_shape(self) -> LatentShape:
        """Shape `(*grid, c)` of one latent."""
        return self.header.latent_shape

    @property
    def num_classes(self) -> int:
        """K: labels are 0 … K − 1. Of a functaset that does not name its classes, as many as there are labels."""
        return len(self.classes) or int(self.labels.max()) + 1

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each row, int64 `(N,)`."""
        return self._read("labels", 0, len(self))

    @cached_property
    def source_index(self) -> np.ndarray:
        """Position in its split of the image behind each row, int64 `(N,)`; `NO_SOURCE` for samples."""
        return self._read("source_index", 0, len(self))

    @cached_property
    def augmentation(self) -> np.ndarray:
        """Number of the copy, see `augment`, int32 `(N,)`; 0 for the image itself."""
        return self._read("augmentation", 0, len(self))

    @cached_property
    def kinds(self) -> np.ndarray:
        """What sort of copy each row is: a `CopyKind`, int64 `(N,)`."""
        return CopyKind.of(self.augmentation)

    @cached_property
    def psnr(self) -> np.ndarray:
        """PSNR of each row's reconstruction in dB, float32 `(N,)`; NaN where unknown."""
        return self._read("psnr", 0, len(self))

    @cached_property
    def originals(self) -> int:
        """Number of rows that are images themselves; copies come after all of them."""
        return int((self.augmentation == 0).sum())

    @cached_property
    def mirrored(self) -> int:
        """Number of rows that are mirrored images and no more; they come after the images and before other copies."""
        return int((self.augmentation == MIRRORED).sum())

    @property
    def image_labels(self) -> np.ndarray:
        """Class of each image, int64 `(originals,)`: its copies have the same."""
        return self.labels[: self.originals]

    @property
    def undistorted(self) -> int:
        """Number of rows that are images or mirrored images: the first ones, before all augmented copies."""
        return self.originals + self.mirrored

    def require_images(self, images: Images) -> None:
        """Raises OtherImagesError if these are not the images whose latents the rows are, and ImagesError as
        `describe_images` does.
        """
        if describe_images(images)["digest"] != self.header.images:
            raise OtherImagesError(str(self.location), self.header.split, len(images))

    @cached_property
    def in_memory(self) -> bool:
        """Whether `batch` holds all latents in memory."""
        return array_of(self._group, "latents").nbytes <= self._memory_limit

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Latents `(stop − start, *grid, c)` of consecutive rows as float32. Raises DamagedShardError, IndexError."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} are not within the {len(self)} rows of {self.location}")
        return self._decoded(self._read("latents", start, stop))

    def batch(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Latents `(B, *grid, c)` of any rows in any order as float32. Raises DamagedShardError, IndexError."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"row {indices.min()} or {indices.max()} is not among the {len(self)} rows of {self.location}"
            )
        if self.in_memory:
            return torch.from_numpy(self._decoded(self._stored.take(indices, axis=0)))
        latents = np.empty((len(indices), *self.latent_shape.shape), np.float32)
        # A chunk is the least that can be read, so each is read once for all the rows wanted from it.
        chunks = indices // self.header.chunk_rows
        for chunk in np.unique(chunks):
            start = chunk * self.header.chunk_rows
            stop = min(start + self.header.chunk_rows, len(self))
            wanted = chunks == chunk
            latents[wanted] = self.rows(start, stop)[indices[wanted] - start]
        return torch.from_numpy(latents)

    @cached_property
    def _stored(self) -> np.ndarray:
        """All latents as they are stored."""
        return self._read("latents", 0, len(self))

    @cached_property
    def ranges(self) -> Ranges | None:
        """What quantised latents are quantised over; None of others. Raises DamagedShardError."""
        return read_ranges(self.location, self._group, self.header) if self.header.bits else None

    @cached_property
    def quantiser(self) -> Quantiser | None:
        """What gives the latents of codes; None if the latents are not quantised. Raises DamagedShardError."""
        return Quantiser(self.ranges, self.header.bits) if self.ranges and self.header.bits else None

    def _decoded(self, stored: np.ndarray) -> np.ndarray:
        """Latents, float32, of what is stored."""
        if self.quantiser is None:
            return stored.astype(np.float32, copy=False)
        return self.quantiser.latents(stored)

    def _read(self, column: str, start: int, stop: int) -> np.ndarray:
        array, shard_rows = array_of(self._group, column), self.header.shard_rows
        values = np.empty((stop - start, *array.shape[1:]), array.dtype)
        while start < stop:
            end = min((start // shard_rows + 1) * shard_rows, stop)
            rows = slice(start, end)
            values[len(values) - (stop - start) :][: end - start] = read_rows(
                self.location, array, self.header, rows, start // shard_rows
            )
            start = end
        return values


def _complete(location: Location) -> tuple[FunctasetHeader, dict[str, Any]]:
    """Header and all attributes of the functaset there. Raises as `Functaset.open` does."""
    attributes = read_attributes(location.url)
    if (version := attributes["schema_version"]) != SCHEMA_VERSION:
        raise SchemaVersionError(location.url, version, SCHEMA_VERSION)
    header = FunctasetHeader.from_attributes(attributes)
    if not attributes["complete"]:
        raise IncompleteFunctasetError(location.url, header.split, header.bits is not None)
    return header, attributes
