import numpy as np
import pytest
import torch

from spatial_functa_pipeline.images.images import Images


@pytest.mark.parametrize(
    ("count", "sizes"), [(None, [4, 4, 3]), (11, [4, 4, 3]), (8, [4, 4]), (50, [4, 4, 3]), (0, [])]
)
def test_images_come_in_order_a_batch_at_a_time(count, sizes):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 2, 3, 1), np.uint8)
    batches = list(Images.from_array(pixels, np.zeros(11), ("a",)).batches(4, count))
    assert [len(batch) for batch in batches] == sizes
    assert all(batch.dtype == torch.uint8 for batch in batches)
    if batches:
        np.testing.assert_array_equal(torch.cat(batches).numpy(), pixels[: sum(sizes)])
