"""The order of a functaset that is read window by window."""

import numpy as np
import pytest

from spatial_functa_pipeline.loading.windows import Chunking, windows

CHUNKINGS = [
    Chunking(rows=23, chunk_rows=4, window_chunks=2),  # the last chunk is short
    Chunking(rows=24, chunk_rows=4, window_chunks=4),  # one window of all six chunks
    Chunking(rows=28, chunk_rows=4, window_chunks=3),  # windows of three and four chunks
    Chunking(rows=5, chunk_rows=8, window_chunks=16),  # less than a chunk
    Chunking(rows=7, chunk_rows=1, window_chunks=1),
]
every_chunking = pytest.mark.parametrize("chunking", CHUNKINGS, ids=str)


def rows_of(chunking: Chunking, seed: int, first: int, last: int) -> np.ndarray:
    """The rows at these positions, from the windows that hold them."""
    found, end = [], None
    for window in windows(chunking, seed, first, last):
        assert end in (None, window.first)
        end = window.last
        rows = np.concatenate([np.arange(*chunking.bounds(chunk)) for chunk in window.chunks])
        placed = np.full(len(rows), -1)
        placed[window.places] = rows
        found.append(placed[max(first - window.first, 0) : last - window.first])
    return np.concatenate(found) if found else np.empty(0, int)


@every_chunking
def test_every_epoch_has_every_row_once(chunking):
    epochs = rows_of(chunking, 3, 0, 5 * chunking.rows).reshape(5, chunking.rows)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(chunking.rows), (5, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5


@every_chunking
def test_any_stretch_is_found_without_what_is_before_it(chunking):
    whole = rows_of(chunking, 3, 0, 3 * chunking.rows)
    for first in range(3 * chunking.rows):
        for last in (first, first + 1, first + chunking.rows, 3 * chunking.rows):
            stretch = whole[first : min(last, 3 * chunking.rows)]
            np.testing.assert_array_equal(rows_of(chunking, 3, first, first + len(stretch)), stretch)


def test_the_order_is_that_of_the_seed():
    first, again, other = (rows_of(CHUNKINGS[0], seed, 0, 23) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_windows_are_never_small():
    for rows in range(1, 200):
        chunking = Chunking(rows, 4, 5)
        sizes = [len(window.chunks) for window in windows(chunking, 0, 0, rows)]
        assert sum(sizes) == chunking.chunks
        assert max(sizes) < 2 * 5
        assert min(sizes) >= min(5, chunking.chunks)
        assert max(sizes) - min(sizes) <= 1


def test_millions_of_rows_are_ordered_chunk_by_chunk():
    chunking = Chunking(rows=65_000_001, chunk_rows=256, window_chunks=32)
    (window,) = windows(chunking, 0, 7 * chunking.rows + 40_000_000, 7 * chunking.rows + 40_000_001)
    assert window.first <= 7 * chunking.rows + 40_000_000 < window.last
    assert len(window.places) <= 33 * 256


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_impossible_chunkings_are_errors(sizes):
    with pytest.raises(ValueError, match="at least one row"):
        Chunking(*sizes)


def test_there_is_nothing_before_the_first_epoch():
    with pytest.raises(ValueError, match="got position -1"):
        next(windows(CHUNKINGS[0], 0, -1, 1))
