"""The shards of a functaset, read with care.

Nothing wrong is read silently: every chunk carries a checksum, and the arrays' fill values are numbers that no stored
column contains, so that a lost file is noticed as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.types import AnyArray

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.format import FunctasetHeader
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.quantisation import MISSING


def array_of(group: zarr.Group, name: str) -> AnyArray:
    """An array of the functaset. Raises KeyError if it is missing."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(f"{name} is no array")
    return array


def read_shard(location: Location, array: AnyArray, header: FunctasetHeader, shard: int) -> np.ndarray:
    """What an array holds of a shard, as it is stored. Raises DamagedShardError."""
    return read_rows(location, array, header, header.place(array.basename, shard), shard)


def read_rows(location: Location, array: AnyArray, header: FunctasetHeader, rows: slice, shard: int) -> np.ndarray:
    """Rows of one shard. Raises DamagedShardError if its file fails its checksum, or is lost, in whole or in part."""
    try:
        values, reason = np.asarray(array[rows]), "is lost or truncated"
        # Zarr reads the fill value where there is nothing to read; a stored row never contains it.
        intact = not (values.reshape(len(values), -1)[:, 0] == array.fill_value).any()
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        intact, reason = False, f"fails its checksum ({error})"
    if not intact:
        raise DamagedShardError(str(location), header.split, shard, shard_file(array, shard), reason)
    return values


def shard_file(array: AnyArray, shard: int) -> str:
    """The file, relative to the functaset, of what one array holds of a shard."""
    return f"{array.path}/{array.metadata.encode_chunk_key((shard, *(0,) * (array.ndim - 1)))}"


def fill_value(dtype: np.dtype) -> Any:
    """A number that no stored column contains."""
    if dtype.kind == "f":
        return -np.inf
    return MISSING if dtype == np.uint8 else np.iinfo(dtype).min
