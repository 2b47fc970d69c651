"""Reading single chunks of a functaset's latents, as fast as the disk allows."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from functools import cached_property

import crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation
from zarr.core.metadata import ArrayV3Metadata
from zarr.types import AnyArray

from spatial_functa_pipeline.functasets.shards import array_of, shard_file
from spatial_functa_pipeline.functasets.store import Functaset

_CHECKSUM_BYTES = 4
_TABLE_ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])


class ChunkReader:
    """Reads one chunk at a time; may be called by several threads at once.

    Zarr needs half a millisecond and three copies for each chunk. Chunks that are nothing but numbers and a checksum (not
    quantised), in local files, are therefore read directly from Zarr's shards. Everything else, also whatever is
    wrong with such a file, is left to `Functaset.rows`.
    """

    def __init__(self, functaset: Functaset) -> None:
        self._functaset = functaset
        self._rows = functaset.header.chunk_rows
        self._files = _direct_files(functaset)

    def __call__(self, chunk: int) -> np.ndarray:
        """The rows of a chunk `(≤ chunk_rows, *grid, c)`, in a floating-point type.

        They are valid until the same thread reads its next chunk.

        Raises:
            DamagedShardError: the chunk's shard is lost or does not pass its checksum.
        """
        start = chunk * self._rows
        stop = min(start + self._rows, len(self._functaset))
        latents = self._files.read(chunk) if self._files else None
        return self._functaset.rows(start, stop) if latents is None else latents[: stop - start]


class _OfThread(threading.local):
    """What each thread has for itself."""

    buffer: memoryview | None = None


@dataclass(frozen=True)
class _DirectFiles:
    """Shards in local files as zarr-specs have them ("sharding-indexed"): the chunks, each followed by its CRC-32C, and at
    the end offset and size of each chunk, followed by their CRC-32C.
    """

    folder: str
    array: AnyArray
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks_per_shard: int
    _own: _OfThread = field(default_factory=_OfThread)
    _tables: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def read(self, chunk: int) -> np.ndarray | None:
        """All rows of a chunk, also those beyond the functaset's end; None if the file is not as it should be."""
        shard, index = divmod(chunk, self.chunks_per_shard)
        try:
            file = os.open(f"{self.folder}/{shard_file(self.array, shard)}", os.O_RDONLY)
        except OSError:
            return None
        try:
            if shard not in self._tables:
                self._tables[shard] = self._read_table(file)
            offset, size = self._tables[shard][index]
            if size != self._size:
                return None
            if self._own.buffer is None:
                # Used again for every chunk, it stays in the processor's cache between checksum and shuffling.
                self._own.buffer = np.empty(size, np.uint8).data
            count = os.preadv(file, [self._own.buffer], offset)
            latents = _verified(self._own.buffer[:count], size)
            return None if latents is None else np.frombuffer(latents, self.dtype).reshape(self.shape)
        finally:
            os.close(file)

    def _read_table(self, file: int) -> list[tuple[int, int]]:
        """Offset and size of each chunk; sizes of 0 if the table is not as it should be."""
        start = os.fstat(file).st_size - self._table_size
        table = _verified(memoryview(os.pread(file, self._table_size, max(start, 0))), self._table_size)
        return [(0, 0)] * self.chunks_per_shard if table is None else np.frombuffer(table, _TABLE_ENTRY).tolist()

    @cached_property
    def _size(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize + _CHECKSUM_BYTES

    @cached_property
    def _table_size(self) -> int:
        return self.chunks_per_shard * _TABLE_ENTRY.itemsize + _CHECKSUM_BYTES


def _verified(data: memoryview, size: int) -> memoryview | None:
    """`data` without the checksum at its end, or None if it is not `size` bytes that fit their checksum."""
    if len(data) != size:
        return None
    content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    return content if crc32c.crc32c(content) == int.from_bytes(checksum, "little") else None


def _direct_files(functaset: Functaset) -> _DirectFiles | None:
    """The latents' shards if they can be read without Zarr, else None."""
    folder = functaset.location.local
    if folder is None or not hasattr(os, "preadv"):
        return None
    array = array_of(zarr.open_group(folder, mode="r"), "latents")
    numbers_and_checksum = (BytesCodec(endian="little"), Crc32cCodec())
    match array.metadata:
        case ArrayV3Metadata(codecs=[ShardingCodec(index_location=ShardingCodecIndexLocation.end) as sharding]):
            plain = sharding.codecs == sharding.index_codecs == numbers_and_checksum
            if array.shards and array.dtype.kind == "f" and plain:
                return _DirectFiles(str(folder), array, array.chunks, array.dtype, array.shards[0] // array.chunks[0])
    return None
