"""Batches of a functaset."""

import numpy as np
import torch

from spatial_functa_pipeline.functasets.batches import FunctasetBatches, consecutive_batches
from spatial_functa_pipeline.functasets.ordering import Part

LATENTS = np.random.default_rng(0).normal(size=(20, 2, 2, 3)).astype(np.float32)


def test_batches_pair_latents_with_their_labels_and_cover_an_epoch(make_functaset):
    functaset = make_functaset(LATENTS)
    seen = []
    for latents, labels in FunctasetBatches(functaset, 5, seed=1, steps=4):
        for latent, label in zip(latents, labels, strict=True):
            (row,) = np.flatnonzero((functaset.rows(0, 20) == latent.numpy()).reshape(20, -1).all(axis=1))
            assert functaset.labels[row] == label
            seen.append(row)
    assert sorted(seen) == list(range(20))


def test_batches_can_be_restricted_to_the_first_rows(make_functaset):
    functaset = make_functaset(LATENTS)
    allowed = functaset.rows(0, 7)
    for latents, _ in FunctasetBatches(functaset, 5, seed=1, steps=6, rows=7):
        for latent in latents:
            assert (allowed == latent.numpy()).reshape(7, -1).all(axis=1).any()


def test_consecutive_batches_are_all_rows_in_order(make_functaset):
    functaset = make_functaset(LATENTS)
    batches = list(consecutive_batches(functaset, 8))
    assert [len(latents) for latents, _ in batches] == [8, 8, 4]
    np.testing.assert_array_equal(torch.cat([latents for latents, _ in batches]), functaset.rows(0, 20))
    np.testing.assert_array_equal(torch.cat([labels for _, labels in batches]), functaset.labels)


def test_a_process_reads_its_part_of_each_batch(make_functaset):
    functaset = make_functaset(LATENTS)
    whole = FunctasetBatches(functaset, 6, seed=1, steps=4)
    parts = [FunctasetBatches(functaset, 6, seed=1, steps=4, part=Part(index, 2)) for index in range(2)]
    for (latents, labels), *own in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in own]), latents)
        assert torch.equal(torch.cat([part for _, part in own]), labels)
