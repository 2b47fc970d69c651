"""A batch in parts draws the random numbers of the whole batch."""

from functools import partial
from typing import get_args

import pytest
import tiny_trainings as tiny
import torch
import torch.nn.functional as F
from torch import nn

from spatial_functa_pipeline.config.diffusion import Objective
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss
from spatial_functa_pipeline.training.batch_invariant_random import BatchInvariantRandom

SHAPE, ROWS = LatentShape((4, 4), 4), 8


def randomised(model):
    """No weight at zero: every layer matters."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.train()


def classifier_loss(config=None):
    model = randomised(build_classifier(config or tiny.transformer(), SHAPE, 2))
    return model, lambda latents, labels, generator: F.cross_entropy(model(latents), labels)


def convnext_loss():
    return classifier_loss(tiny.convnext())


def denoiser_loss(objective="epsilon", architecture="unet"):
    config = tiny.diffusion(architecture, objective)
    model, process = randomised(build_denoiser(config, SHAPE, 2)), Process.of(config)
    return model, lambda latents, labels, generator: diffusion_loss(
        model, latents, labels, process, config, 2, generator
    )


@pytest.mark.parametrize(
    "make",
    [
        classifier_loss,
        convnext_loss,
        *(partial(denoiser_loss, objective) for objective in get_args(Objective)),
        partial(denoiser_loss, architecture="dit"),
    ],
)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_loss_and_gradient_do_not_depend_on_the_parts(make, size):
    """Noise levels, noise, dropped labels, dropout and drop path; 3 does not divide 8."""
    model, loss = make()
    latents, labels = torch.randn(ROWS, *SHAPE.shape), torch.arange(ROWS) % 2

    def gradient(parts, draws):
        model.zero_grad()
        total = 0.0
        for rows in parts:
            torch.manual_seed(5)
            with draws(rows):
                value = loss(latents[rows], labels[rows], torch.Generator().manual_seed(6))
            (value * len(labels[rows]) / ROWS).backward()
            total += value.item() * len(labels[rows]) / ROWS
        return total, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole_loss, whole = gradient([slice(0, ROWS)], lambda rows: torch.enable_grad())
    parts = [slice(start, min(start + size, ROWS)) for start in range(0, ROWS, size)]
    parts_loss, in_parts = gradient(parts, lambda rows: BatchInvariantRandom(rows, ROWS))
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    assert (in_parts - whole).norm() < 1e-4 * whole.norm()
    assert whole.norm() > 1e-3


def test_dropout_draws_in_the_memory_order_of_its_argument():
    for values in (torch.randn(6, 3, 4), torch.randn(6, 4, 3).movedim(2, 1)):
        torch.manual_seed(0)
        whole = F.dropout(values, 0.4)
        torch.manual_seed(0)
        with BatchInvariantRandom(slice(2, 5), 6):
            part = F.dropout(values[2:5], 0.4)
        assert torch.equal(part, whole[2:5])
        assert 0 < (part == 0).sum() < part.numel()


def test_dropout_in_evaluation_draws_nothing():
    values = torch.randn(3, 2)
    with BatchInvariantRandom(slice(0, 3), 6):
        assert torch.equal(nn.Dropout(0.5).eval()(values), values)
        assert torch.equal(nn.Dropout(0.0)(values), values)
        assert torch.equal(nn.Dropout2d(0.5).eval()(values[..., None, None]), values[..., None, None])


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: torch.randint(9, (3,), generator=generator),
        lambda generator: torch.rand(7, generator=generator),
        lambda generator: nn.Dropout2d(0.5)(torch.ones(3, 2, 2, 2)),
    ],
)
def test_a_draw_that_would_depend_on_the_parts_is_an_error(draw):
    with BatchInvariantRandom(slice(0, 3), 6), pytest.raises(NotImplementedError):
        draw(torch.Generator())
