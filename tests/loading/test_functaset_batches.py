"""Batches of a functaset, from memory and window by window."""

import threading

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write
from spatial_functa_pipeline.images.augmentation import MIRRORED, CopyKind
from spatial_functa_pipeline.loading import functaset_batches as module
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches, consecutive_batches, mirrored_batches
from spatial_functa_pipeline.loading.ordering import Part

N = 43
"""Rows: shards of 8 and chunks of 2, so that the last of both are not full."""
LATENTS = np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1) + np.linspace(0, 0.5, 12, dtype=np.float32).reshape(
    2, 2, 3
)


@pytest.fixture(params=["in memory", "in windows"])
def functaset(request, make_functaset, small_windows) -> Functaset:
    """Row r has latents r … r + 0.5 and label r % 10."""
    made = make_functaset(LATENTS, shard_rows=8, chunk_rows=2)
    return Functaset.open(made.location.url, memory_limit=2**20 if request.param == "in memory" else 0)


@pytest.fixture
def streamed(make_functaset, small_windows) -> Functaset:
    """The same, always read from disk."""
    return Functaset.open(make_functaset(LATENTS, shard_rows=8, chunk_rows=2).location.url, memory_limit=0)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of four chunks and two batches, or as many more as one of these needs."""
    monkeypatch.setattr(module, "WINDOW_BYTES", 1)
    monkeypatch.setattr(module, "WINDOW_BATCHES", 2)
    monkeypatch.setattr(module, "WINDOW_CHUNKS", 4)


def rows_of(batches) -> list[np.ndarray]:
    """The rows of each batch, after checking that latents and labels are theirs."""
    found = []
    for latents, labels in batches:
        assert (latents.dtype, labels.dtype) == (torch.float32, torch.int64)
        rows = latents[:, 0, 0, 0].round().int().numpy()
        np.testing.assert_allclose(latents.numpy(), LATENTS[rows], atol=0.02)
        np.testing.assert_array_equal(labels.numpy(), rows % 10)
        found.append(rows)
    return found


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("functaset")]


@pytest.mark.parametrize("batch_size", [1, 5, 8, 30, N, 100])
def test_every_epoch_has_every_row_once(functaset, batch_size):
    steps = -(-3 * N // batch_size)
    batches = rows_of(FunctasetBatches(functaset, batch_size, seed=1, steps=steps))
    assert [len(batch) for batch in batches] == [batch_size] * steps
    epochs = np.concatenate(batches)[: 3 * N].reshape(3, N)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(N), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


@pytest.mark.parametrize("shape", [(8, 2), (64, 2), (6, 3), (64, 64)], ids=str)
def test_windows_may_be_larger_than_shards_and_than_the_functaset(make_functaset, monkeypatch, shape):
    made = make_functaset(LATENTS, shard_rows=shape[0], chunk_rows=shape[1])
    functaset = Functaset.open(made.location.url, memory_limit=0)
    (*_, epoch) = rows_of(FunctasetBatches(functaset, N, seed=1, steps=2))  # the default windows: all rows
    assert sorted(epoch) == list(range(N))


def test_the_order_is_that_of_the_seed(functaset):
    first, again, other = (np.concatenate(rows_of(FunctasetBatches(functaset, 5, seed, 8))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("batch_size", [3, 8, 60])
def test_any_step_can_be_the_first(functaset, batch_size):
    steps = -(-2 * N // batch_size) + 1
    whole = rows_of(FunctasetBatches(functaset, batch_size, seed=1, steps=steps))
    for start in range(steps + 1):
        rest = rows_of(FunctasetBatches(functaset, batch_size, seed=1, steps=steps, start_step=start))
        assert len(rest) == steps - start
        for batch, expected in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("batch_size", [6, 60])
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_several_processes_are_the_batch(functaset, batch_size, count):
    whole = rows_of(FunctasetBatches(functaset, batch_size, seed=1, steps=9, start_step=1))
    parts = [
        rows_of(FunctasetBatches(functaset, batch_size, seed=1, steps=9, start_step=1, part=Part(index, count)))
        for index in range(count)
    ]
    np.testing.assert_array_equal([np.concatenate(batch) for batch in zip(*parts, strict=True)], whole)


def test_a_batch_that_cannot_be_divided_is_an_error(functaset):
    with pytest.raises(ValueError, match=r"batch_size \(7\) must be divisible by the number of processes \(2\)"):
        next(iter(FunctasetBatches(functaset, 7, seed=1, steps=9, part=Part(0, 2))))


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_batches_can_be_restricted_to_the_first_rows(functaset, rows):
    batches = rows_of(FunctasetBatches(functaset, 5, seed=1, steps=2 * rows, rows=rows))
    epochs = np.concatenate(batches).reshape(-1, rows)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(rows), (len(epochs), 1)))


@pytest.mark.parametrize("stored", [{}, {"storage_type": "float16"}, {"bits": 8}], ids=str)
def test_whatever_is_stored_can_be_read_in_windows(make_functaset, small_windows, stored):
    made = make_functaset(LATENTS, shard_rows=8, chunk_rows=2, **stored)
    functaset = Functaset.open(made.location.url, memory_limit=0)
    for latents, labels in FunctasetBatches(functaset, 5, seed=1, steps=9):
        rows = latents[:, 0, 0, 0].round().int().numpy()
        np.testing.assert_array_equal(latents.numpy(), functaset.batch(rows).numpy())
        np.testing.assert_array_equal(labels.numpy(), rows % 10)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("part", [Part(0, 1), Part(1, 2)])
def test_each_row_comes_with_its_kind_if_that_is_asked_for(make_functaset, small_windows, in_memory, part):
    made = make_functaset(LATENTS, shard_rows=8, chunk_rows=2)
    functaset = Functaset.open(made.location.url, memory_limit=2**20 if in_memory else 0)
    functaset.augmentation = np.repeat([0, MIRRORED, 1, 2], [12, 12, 12, N - 36])
    expected = np.repeat([CopyKind.ORIGINAL, CopyKind.MIRRORED, CopyKind.AUGMENTED], [12, 12, N - 24])
    np.testing.assert_array_equal(functaset.kinds, expected)
    batches = list(FunctasetBatches(functaset, 6, seed=1, steps=15, part=part, kinds=True))
    rows = rows_of(batch[:2] for batch in batches)
    assert len(set(np.concatenate(rows))) > N - 12
    for batch, of_batch in zip(batches, rows, strict=True):
        assert batch[2].dtype == torch.int64
        np.testing.assert_array_equal(batch[2].numpy(), expected[of_batch])


def test_a_window_mixes_rows_of_many_chunks(streamed):
    batches = rows_of(FunctasetBatches(streamed, 8, seed=1, steps=20))
    assert np.mean([len(set(batch // 2)) for batch in batches]) > 4


def test_a_window_reads_each_of_its_chunks_once(streamed, monkeypatch):
    read = []
    original = module.WindowReader.__init__

    def watched(self, *arguments):
        original(self, *arguments)
        reader = self._read_chunk
        self._read_chunk = lambda chunk: (read.append(chunk), reader(chunk))[1]

    monkeypatch.setattr(module.WindowReader, "__init__", watched)
    list(FunctasetBatches(streamed, N, seed=1, steps=2))
    assert sorted(read) == sorted(2 * list(range(22)))


def test_reading_goes_one_window_ahead_and_no_further(streamed, monkeypatch):
    begun = []
    original = module.WindowReader._begin
    monkeypatch.setattr(
        module.WindowReader, "_begin", lambda self, *given: (begun.append(given[1]), original(self, *given))[1]
    )
    batches = iter(FunctasetBatches(streamed, 2, seed=1, steps=1000))
    for _ in range(3):
        next(batches)
        assert len(begun) == 2
    batches.close()


def test_batches_that_are_kept_keep_their_values(streamed):
    """The memory of a window is used again, but not before its last batch is gone."""
    kept, later = [], []
    for step, batch in enumerate(FunctasetBatches(streamed, 3, seed=1, steps=300)):
        (kept if step % 2 else later).append((batch[0], batch[1].clone()))
        if len(later) > 20:
            later.clear()
    assert len(kept) == 150
    rows_of(kept)


def test_a_window_is_given_up_before_the_next_but_one_is_read(streamed):
    """Of 8 rows in batches of 3, the first is a view; the second must not hold them when the third needs more."""
    batches = FunctasetBatches(streamed, 3, seed=1, steps=6, rows=40)
    views = [latents.untyped_storage().nbytes() > latents.nbytes for latents, _ in batches]
    assert views == [True, False, False, True, False, False]


def damage(functaset: Functaset, shard: int, at: int | None) -> None:
    """Change one byte of a shard's latents, or, with None, cut its end off."""
    file = functaset.location.local / f"latents/c/{shard}/0/0/0"
    content = bytearray(file.read_bytes())
    if at is None:
        del content[-30:]
    else:
        content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("at", [0, 50, -1, None])
def test_damage_reaches_the_caller(streamed, at):
    damage(streamed, 3, at)
    with pytest.raises(DamagedShardError, match=r"shard 3 of array 'latents'"):
        list(FunctasetBatches(streamed, 5, seed=1, steps=9))
    assert not threads()


def test_a_lost_shard_reaches_the_caller(streamed):
    (streamed.location.local / "latents/c/3/0/0/0").unlink()
    with pytest.raises(DamagedShardError, match="lost"):
        list(FunctasetBatches(streamed, 5, seed=1, steps=9))


def test_an_early_end_leaves_no_thread(streamed):
    batches = iter(FunctasetBatches(streamed, 5, seed=1, steps=1000))
    next(batches)
    assert threads()
    batches.close()
    assert not threads()


def test_a_forgotten_iterator_leaves_no_thread(streamed):
    for _ in FunctasetBatches(streamed, 5, seed=1, steps=1000):
        break
    assert not threads()


def test_an_interruption_while_it_waits_leaves_no_thread(streamed, monkeypatch):
    """As Ctrl-C does, which is raised in the main thread: there it waits for the window to be whole."""

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    batches = iter(FunctasetBatches(streamed, 5, seed=1, steps=1000))
    next(batches)
    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(batches)
    assert not threads()


def test_consecutive_batches_are_all_rows_in_order(functaset):
    batches = list(consecutive_batches(functaset, 8))
    assert [len(latents) for latents, _ in batches] == [8, 8, 8, 8, 8, 3]
    np.testing.assert_array_equal(torch.cat([latents for latents, _ in batches]), LATENTS)
    np.testing.assert_array_equal(torch.cat([labels for _, labels in batches]), functaset.labels)


def test_images_and_mirrored_images_are_read_apart_from_copies(make_plan, make_functaset, tmp_path):
    plan = make_plan(LATENTS, originals=20)
    plan.encode.all.augmentation[20:40] = MIRRORED
    write(tmp_path / "mirrored.zarr", plan)
    made = Functaset.open(tmp_path / "mirrored.zarr")
    assert np.concatenate(rows_of(consecutive_batches(made, 8))).tolist() == list(range(20))
    assert np.concatenate(rows_of(consecutive_batches(made, 8, 11))).tolist() == list(range(11))
    assert np.concatenate(rows_of(mirrored_batches(made, 8))).tolist() == list(range(20, 40))
    with pytest.raises(ValueError, match="has no mirrored images"):
        mirrored_batches(make_functaset(LATENTS), 8)
