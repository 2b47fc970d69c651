"""Stochastic depth: its mean, its share of rows, and that nothing is drawn where it does nothing."""

import pytest
import torch

from spatial_functa_pipeline.models.drop_path import DropPath, drop_shares
from spatial_functa_pipeline.training.batch_invariant_random import BatchInvariantRandom


def test_whole_rows_are_left_out_and_the_mean_stays():
    torch.manual_seed(0)
    branch = 1 + torch.rand(4000, 2, 3)
    dropped = DropPath(0.25)(branch)
    factor = dropped / branch
    torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
    kept = factor[:, 0, 0] > 0
    torch.testing.assert_close(dropped[kept], branch[kept] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert dropped.mean().item() == pytest.approx(branch.mean().item(), rel=0.03)


@pytest.mark.parametrize("module", [DropPath(0.5).eval(), DropPath(0.0)])
def test_in_evaluation_and_without_a_share_it_does_nothing_and_draws_nothing(module):
    branch, state = torch.randn(5, 2), torch.get_rng_state()
    assert module(branch) is branch
    assert torch.equal(torch.get_rng_state(), state)


def test_a_part_of_a_batch_loses_the_rows_it_would_lose_in_the_whole_batch():
    branch = torch.ones(16, 2, 3)

    def dropped(rows):
        torch.manual_seed(0)
        with BatchInvariantRandom(rows, 16):
            return DropPath(0.5)(branch[rows])

    whole = dropped(slice(0, 16))
    assert {0.0, 2.0} == set(whole.flatten().tolist())
    assert torch.equal(torch.cat([dropped(slice(0, 5)), dropped(slice(5, 16))]), whole)


def test_shares_rise_linearly_to_that_of_the_last_block():
    assert drop_shares(0.4, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert drop_shares(0.4, 1) == [0.4]
    assert drop_shares(0.0, 2) == [0.0, 0.0]
