"""Reading single chunks of a functaset's latents, as fast as the disk allows."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from functools import cached_property

import crc32c
import numpy as np
import zarr
from numcodecs import zstd
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.types import AnyArray

from spatial_functa_pipeline.functasets.quantisation import Quantiser
from spatial_functa_pipeline.functasets.shards import array_of, shard_file
from spatial_functa_pipeline.functasets.store import Functaset

_CHECKSUM_BYTES = 4
_TABLE_ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])


class ChunkReader:
    """Reads one chunk at a time; may be called by several threads at once.

    Zarr needs half a millisecond and three copies for each chunk. Chunks in local files, numbers or compressed codes
    with a checksum, are therefore read directly from Zarr's shards. Everything else, also whatever is wrong with such a
    file, is left to `Functaset.rows`.
    """

    def __init__(self, functaset: Functaset) -> None:
        self._functaset = functaset
        self._rows = functaset.header.chunk_rows
        self._files = _direct_files(functaset)
        self._codes = _Codes(functaset.quantiser) if self._files and functaset.quantiser else None

    def __call__(self, chunk: int) -> np.ndarray:
        """The rows of a chunk `(≤ chunk_rows, *grid, c)`, in a floating-point type.

        They are valid until the same thread reads its next chunk.

        Raises:
            DamagedShardError: the chunk's shard is lost or does not pass its checksum.
        """
        start = chunk * self._rows
        stop = min(start + self._rows, len(self._functaset))
        stored = self._files.read(chunk) if self._files else None
        if stored is None:
            return self._functaset.rows(start, stop)
        stored = stored[: stop - start]
        return stored if self._codes is None else self._codes.latents(stored)


class _OfThread(threading.local):
    """What each thread has for itself: used again for every chunk, it stays in the processor's cache from one step to the
    next, and the system need not hand out new memory.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of arbitrary numbers."""
        size, kept = int(np.prod(shape)), self._arrays.get(name)
        if kept is None or kept.size < size:
            kept = self._arrays[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


class _Codes:
    """Makes latents of codes."""

    def __init__(self, quantiser: Quantiser) -> None:
        self._quantiser, self._own = quantiser, _OfThread()

    def latents(self, codes: np.ndarray) -> np.ndarray:
        """Latents, float32, valid until the same thread calls again."""
        return self._quantiser.latents(codes, self._own.array("latents", codes.shape, np.dtype(np.float32)))


@dataclass(frozen=True)
class _DirectFiles:
    """Shards in local files as zarr-specs have them ("sharding-indexed"): the chunks, each followed by its CRC-32C, and at
    the end offset and size of each chunk, followed by their CRC-32C. Chunks may be `compressed` by Zstandard.
    """

    folder: str
    array: AnyArray
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks_per_shard: int
    compressed: bool
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
            if not (0 < size <= 2 * self._size if self.compressed else size == self._size):
                return None
            buffer = self._own.array("file", (size,), np.dtype(np.uint8)).data
            count = os.preadv(file, [buffer], offset)
            content = _verified(buffer[:count], size)
        finally:
            os.close(file)
        if content is None or not self.compressed:
            return None if content is None else np.frombuffer(content, self.dtype).reshape(self.shape)
        stored = self._own.array("stored", self.shape, self.dtype)
        zstd.decompress(content, stored)
        return stored

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
            match sharding.codecs:
                case (BytesCodec(), ZstdCodec(), Crc32cCodec()) if array.dtype == np.uint8:
                    compressed = True
                case codecs if codecs == numbers_and_checksum and array.dtype.kind == "f":
                    compressed = False
                case _:
                    return None
            if array.shards and sharding.index_codecs == numbers_and_checksum:
                chunks_per_shard = array.shards[0] // array.chunks[0]
                return _DirectFiles(str(folder), array, array.chunks, array.dtype, chunks_per_shard, compressed)
    return None
