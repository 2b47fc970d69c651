"""Files in the format of MNIST."""

import gzip
import struct


def write_idx(path, array, announced=None):
    """An IDX file written by hand."""
    shape = announced or array.shape
    content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
