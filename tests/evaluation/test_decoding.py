import pytest
import torch
from evaluated import field, latents

from spatial_functa_pipeline.evaluation.decoding import BATCH, decode, decoded


@pytest.mark.parametrize("count", [None, BATCH, BATCH + 1, 1000])
def test_rows_are_decoded_in_order_a_batch_at_a_time(make_functaset, count):
    rows, decoder = latents(BATCH + 5), field()
    batches = list(decoded(make_functaset(rows), decoder, count))
    total = min(len(rows), count or len(rows))
    assert [len(batch) for batch in batches] == [BATCH, total - BATCH][: 1 + (total > BATCH)]
    assert not any(batch.requires_grad for batch in batches)
    torch.testing.assert_close(torch.cat(batches), decoder.decode(torch.from_numpy(rows[:total])).detach())


def test_a_finer_picture_of_the_same_latents():
    assert decode(field(), torch.from_numpy(latents(2)), (16, 16)).shape == (2, 16, 16, 1)
