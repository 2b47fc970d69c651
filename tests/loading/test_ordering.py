import numpy as np
import pytest

from spatial_functa_pipeline.loading.ordering import Part, epoch_batches


def test_every_row_comes_once_per_epoch():
    batches = list(epoch_batches(num_rows=10, batch_size=4, seed=3, start_step=0, steps=10))
    assert {batch.shape for batch in batches} == {(4,)}
    assert batches[0].dtype == np.int64
    epochs = np.concatenate(batches).reshape(4, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 2)])
@pytest.mark.parametrize("start", [1, 5, 12, 13])
def test_a_restart_continues_the_uninterrupted_order(num_rows, batch_size, start):
    whole = list(epoch_batches(num_rows, batch_size, 3, 0, 13))
    rest = list(epoch_batches(num_rows, batch_size, 3, start, 13))
    assert len(whole) == 13
    np.testing.assert_array_equal(np.array(rest).reshape(-1, batch_size), np.array(whole)[start:])


def test_a_batch_may_hold_several_epochs():
    (batch,) = epoch_batches(num_rows=3, batch_size=8, seed=0, start_step=0, steps=1)
    assert sorted(batch[:3].tolist()) == sorted(batch[3:6].tolist()) == [0, 1, 2]
    assert len(set(batch[6:].tolist())) == 2


def test_the_order_is_that_of_the_seed():
    first, again, other = (np.concatenate(list(epoch_batches(50, 10, seed, 0, 5))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(("num_rows", "batch_size", "start"), [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_impossible_orders_fail_at_once(num_rows, batch_size, start):
    with pytest.raises(ValueError, match="at least one row"):
        epoch_batches(num_rows, batch_size, 0, start, 1)


@pytest.mark.parametrize("start", [0, 5])
def test_the_parts_of_several_processes_are_the_batch(start):
    whole = list(epoch_batches(10, 6, 3, start, 9))
    parts = [list(epoch_batches(10, 6, 3, start, 9, Part(index, 3))) for index in range(3)]
    assert {batch.shape for part in parts for batch in part} == {(2,)}
    np.testing.assert_array_equal([np.concatenate(batch) for batch in zip(*parts, strict=True)], whole)


def test_a_batch_that_cannot_be_divided_is_an_error_at_once():
    with pytest.raises(ValueError, match=r"batch_size \(7\) must be divisible by the number of processes \(2\)"):
        epoch_batches(10, 7, 3, 0, 9, Part(0, 2))
