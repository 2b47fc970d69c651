"""Memory that windows are read into. What is read is tested with the batches."""

import numpy as np
import torch

from spatial_functa_pipeline.loading.window_reader import _ReusedMemory


def test_memory_is_used_again_once_the_last_view_of_it_is_gone():
    memory = _ReusedMemory()
    tensor = torch.from_numpy(memory.array((4, 2, 3)))
    first = tensor.data_ptr()
    view = tensor[1:2].numpy()
    del tensor
    other = memory.array((4, 2, 3))
    assert not np.shares_memory(view, other)
    del view
    again = memory.array((3, 2, 3))
    assert again.ctypes.data == first
    assert again.shape == (3, 2, 3)
    assert not np.shares_memory(again, other)


def test_a_larger_array_gets_memory_of_its_own():
    memory = _ReusedMemory()
    memory.array((4, 3))  # gone at once
    larger = memory.array((400, 3))
    larger[:] = 1
    assert larger.shape == (400, 3)
    np.testing.assert_array_equal(larger, np.ones((400, 3), np.float32))
