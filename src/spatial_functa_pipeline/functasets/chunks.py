"""Reading single chunks of a functaset's latents, as fast as the disk allows."""

from __future__ import annotations

import os
import threading

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation

from .store import Functaset, shard_file

_CHECKSUM_BYTES = 4


class ChunkReader:
    """Reads one chunk at a time; may be called by several threads at once.

    Zarr needs half a millisecond and three copies for each chunk. Chunks that are nothing but numbers and a checksum (not
    quantised), in local files, are therefore read directly from Zarr's shards: `offset, size` of each chunk and a
    checksum at the file's end (zarr-specs, "sharding-indexed" codec). Everything else, also whatever is wrong with
    such a file, is left to `Functaset.rows`.
    """

    def __init__(self, functaset: Functaset) -> None:
        self._functaset = functaset
        self._rows = functaset.header.chunk_rows
        self._array = _plain_shards(functaset)
        self._buffers = threading.local()

    def __call__(self, chunk: int) -> np.ndarray:
        """The rows of a chunk `(≤ chunk_rows, *grid, c)`, in a floating-point type.

        They are valid until the same thread reads its next chunk.

        Raises:
            DamagedShardError: the chunk's shard is lost or does not pass its checksum.
        """
        start = chunk * self._rows
        stop = min(start + self._rows, len(self._functaset))
        latents = self._read_directly(chunk) if self._array is not None else None
        return self._functaset.rows(start, stop) if latents is None else latents[: stop - start]

    def _read_directly(self, chunk: int) -> np.ndarray | None:
        """All of a chunk, also where it is longer than the functaset; None if the file is not as it should be."""
        array, folder = self._array, self._functaset.location.local
        per_shard = array.shards[0] // self._rows
        shard, index = divmod(chunk, per_shard)
        shape = (self._rows, *array.shape[1:])
        size = int(np.prod(shape)) * array.dtype.itemsize + _CHECKSUM_BYTES
        try:
            file = os.open(folder / shard_file(array, shard), os.O_RDONLY)
        except OSError:
            return None
        try:
            table_size = 16 * per_shard + _CHECKSUM_BYTES
            end = os.fstat(file).st_size
            table = _verified(os.pread(file, table_size, max(end - table_size, 0)), table_size)
            if table is None:
                return None
            offset, stored = np.frombuffer(table, "<u8", 2, 16 * index).tolist()
            if stored != size or offset + size > end:
                return None
            if not hasattr(self._buffers, "chunk"):
                # Used again for every chunk, it stays in the processor's cache between checksum and shuffling.
                self._buffers.chunk = np.empty(size, np.uint8)
            count = os.preadv(file, [self._buffers.chunk], offset)
            latents = _verified(self._buffers.chunk[:count], size)
            return None if latents is None else latents.view(array.dtype).reshape(shape)
        finally:
            os.close(file)


def _verified(data: bytes | np.ndarray, size: int) -> bytes | np.ndarray | None:
    """`data` without the checksum at its end, or None if it is not `size` bytes that fit their checksum."""
    if len(data) != size:
        return None
    content, checksum = data[:-_CHECKSUM_BYTES], bytes(data[-_CHECKSUM_BYTES:])
    return content if google_crc32c.value(content) == int.from_bytes(checksum, "little") else None


def _plain_shards(functaset: Functaset) -> zarr.Array | None:
    """The latents' array if its shards can be read without Zarr, else None."""
    if functaset.location.local is None or not hasattr(os, "preadv"):
        return None
    array = zarr.open_array(functaset.location.local / "latents", mode="r")
    plain = (BytesCodec(endian="little"), Crc32cCodec())
    match array.metadata.codecs:
        case [ShardingCodec(index_location=ShardingCodecIndexLocation.end) as shards]:
            return array if shards.codecs == shards.index_codecs == plain and array.dtype.kind == "f" else None
    return None
