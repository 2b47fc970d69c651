"""MixUp: what is mixed with what, and that no split of the batch changes it."""

import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.training import mixup as module
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.mixup import mixed
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import step_generator

INPUTS, LABELS = torch.tensor([[0.0, 8.0], [4.0, 0.0], [1.0, 1.0], [3.0, 5.0]]), torch.tensor([0, 2, 1, 1])


class Share:
    """In the place of NumPy's generator: λ is 0.75."""

    def __init__(self, seed):
        pass

    def beta(self, a, b):
        return 0.75


def test_neighbours_and_their_classes_are_mixed(monkeypatch):
    monkeypatch.setattr(module.np.random, "default_rng", Share)
    inputs, targets = mixed(INPUTS, LABELS, 3, 0.2, torch.Generator())
    assert inputs.tolist() == [[1.0, 6.0], [3.0, 2.0], [1.5, 2.0], [2.5, 4.0]]
    assert targets.tolist() == [[0.75, 0.0, 0.25], [0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


def test_parts_of_a_batch_are_mixed_as_the_whole():
    whole = mixed(INPUTS, LABELS, 3, 0.2, step_generator(0, "a", 5))
    parts = [mixed(INPUTS[rows], LABELS[rows], 3, 0.2, step_generator(0, "a", 5)) for rows in ([0, 1], [2, 3])]
    for values, in_parts in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(values, torch.cat(in_parts))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_share_of_a_step_is_drawn_from_beta(alpha):
    """Mean ½ and variance 1/(4(2α + 1))."""
    first, labels = torch.tensor([[1.0], [0.0]]), torch.tensor([0, 1])
    shares = torch.cat([mixed(first, labels, 2, alpha, step_generator(0, step))[0][0] for step in range(3000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_rows_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="in pairs, but got 3"):
        mixed(INPUTS[:3], LABELS[:3], 3, 0.2, torch.Generator())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_classes_is_that_of_both_classes(smoothing):
    """λ L(y) + (1 − λ) L(y′), label smoothing included."""
    logits, share = torch.randn(1, 3), 0.75
    loss = torch.nn.functional.cross_entropy
    both = [loss(logits, torch.tensor([label]), label_smoothing=smoothing) for label in (0, 2)]
    soft = loss(logits, torch.tensor([[share, 0.0, 1 - share]]), label_smoothing=smoothing)
    torch.testing.assert_close(soft, share * both[0] + (1 - share) * both[1])


def test_a_training_with_it_does_not_depend_on_the_micro_batch(tmp_path):
    folder = tiny.write_functasets(tmp_path)
    splits = [Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation")]

    def weights(mixup, micro_batch):
        config = tiny.transformer(micro_batch=micro_batch, steps=6, validate_every=6).model_copy(
            update={"mixup": mixup}
        )
        run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / f"{mixup}-{micro_batch}.pt"))
        model, _ = train_classifier(*splits, Normaliser.by_scale(1.0), config, num_classes=2, run=run)
        # The keys' bias has no gradient but rounding errors, and Adam scales them up.
        return torch.cat([value.flatten() for name, value in model.named_parameters() if "qkv.bias" not in name])

    whole, parts, without = weights(0.4, "auto"), weights(0.4, 2), weights(None, "auto")
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert (without - whole).abs().max() > 1e-3
