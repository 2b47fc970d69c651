"""The shards of a functaset, read with care.

Nothing wrong is read silently: every chunk carries a checksum, and the arrays' fill values are numbers that no stored
column contains (but for codes of 8 bits), so that a lost file is noticed as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.types import AnyArray

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.format import RANGES, FunctasetHeader
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.quantisation import MISSING, Ranges


def array_of(group: zarr.Group, name: str) -> AnyArray:
    """An array of the functaset. Raises KeyError if it is missing."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(f"{name} is no array")
    return array


def read_shard(location: Location, array: AnyArray, header: FunctasetHeader, shard: int) -> np.ndarray:
    """What an array holds of a shard, as it is stored. Raises DamagedShardError."""
    return read_rows(location, array, header, slice(*header.bounds(shard)), shard)


def read_ranges(location: Location, group: zarr.Group, header: FunctasetHeader) -> Ranges:
    """The ranges of quantised latents. Raises DamagedShardError, KeyError."""
    return Ranges(*read_rows(location, array_of(group, RANGES), header, slice(0, 2), 0))


def read_rows(location: Location, array: AnyArray, header: FunctasetHeader, rows: slice, shard: int) -> np.ndarray:
    """Rows of one shard. Raises DamagedShardError if its file fails its checksum, or is lost, in whole or in part."""
    try:
        values, reason = np.asarray(array[rows]), "is lost or truncated"
        # Zarr reads the fill value where there is nothing to read; a stored row never contains it, but for codes of 8 bits.
        intact = not (values.reshape(len(values), -1)[:, 0] == array.fill_value).any()
        intact = intact or (header.bits == 8 and location.exists(shard_file(array, shard)))
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        intact, reason = False, f"fails its checksum ({error})"
    if not intact:
        file, quantised = shard_file(array, shard), header.bits is not None
        raise DamagedShardError(str(location), header.split, shard, file, reason, quantised)
    return values


def shard_file(array: AnyArray, shard: int) -> str:
    """The file, relative to the functaset, of what one array holds of a shard."""
    return f"{array.path}/{array.metadata.encode_chunk_key((shard, *(0,) * (array.ndim - 1)))}"


def fill_value(dtype: np.dtype) -> Any:
    """A number that no stored column contains, but for codes of 8 bits, which can be any number."""
    if dtype.kind == "f":
        return -np.inf
    return MISSING if dtype == np.uint8 else np.iinfo(dtype).min
