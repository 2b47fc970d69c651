"""Paths and objectives: what is drawn, what a sampler goes over, and what a network's output stands for."""

import math
from typing import get_args

import pytest
import torch
from told_levels import level_at
from torch import nn

from spatial_functa_pipeline.config.diffusion import DiffusionConfig, Objective
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss
from spatial_functa_pipeline.models.paths import CLEAN, build_path

OBJECTIVES = pytest.mark.parametrize("objective", get_args(Objective))
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.4, 0.2], [0.2, 0.9]], dtype=torch.float64)


def diffusion_config(objective, **options):
    return DiffusionConfig(
        objective=objective,
        conditional=False,
        unet={"channels": 32, "multipliers": (1,), "residual_blocks": 1},
        mlp={"width": 8, "blocks": 1},
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
        **options,
    )


def levels_of(config, steps=12):
    """From much noise to little, float64."""
    return build_path(config).grid(steps)[:-1]


# What an output stands for


@OBJECTIVES
def test_the_clean_latent_follows_from_the_target(objective):
    config = diffusion_config(objective, normalisation={"gamma": 2.0})
    clean, noise = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    predicts = Process.of(config).objective
    for level in levels_of(config):
        noisy, target = level.mix(clean, noise), predicts.target(clean, noise, level)
        torch.testing.assert_close(predicts.clean(target, noisy, level), clean, atol=1e-7, rtol=1e-7)
        wrong = predicts.clean(target + 0.01, noisy, level) - clean
        torch.testing.assert_close(
            wrong.abs(), (0.01 / predicts.error_ratio(level)).expand_as(wrong), rtol=1e-6, atol=1e-7
        )


@OBJECTIVES
def test_the_least_loss_is_that_of_the_best_prediction(objective):
    """Linear regression of the target on the noisy latents gives, as x₀, the conditional expectation of Gaussian data.

    The rows are twelve points with exactly the moments of (x₀, ε), so that no sampling error is left.
    """
    config = diffusion_config(objective)
    predicts, root = Process.of(config).objective, torch.linalg.cholesky(COVARIANCE)
    points = 2 * torch.cat([torch.eye(4), -torch.eye(4)]).double()  # mean 0, covariance 1
    clean, noise = MEAN + points[:, :2] @ root.T, points[:, 2:]
    for level in levels_of(config):
        noisy = level.mix(clean, noise)
        inputs = torch.cat([predicts.network_input(noisy, level), torch.ones(len(noisy), 1)], dim=1)
        output = inputs @ torch.linalg.lstsq(inputs, predicts.target(clean, noise, level)).solution
        marginal = level.signal**2 * COVARIANCE + level.noise**2 * torch.eye(2)
        expected = MEAN + level.signal * (noisy - level.signal * MEAN) @ torch.linalg.solve(marginal, COVARIANCE)
        torch.testing.assert_close(predicts.clean(output, noisy, level), expected, atol=1e-6, rtol=0)


def test_edm_is_preconditioned_as_in_its_paper():
    """Tab. 1 of Karras et al. (2022), where D = c_skip x + c_out F(c_in x), and Eq. 8: λ = 1/c_out²."""
    config = diffusion_config("edm", normalisation={"gamma": 2.0})
    predicts, std = Process.of(config).objective, 0.5
    noisy, output = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in levels_of(config):
        total = level.noise**2 + std**2
        c_skip, c_out, c_in = std**2 / total, level.noise * std / total.sqrt(), 1 / total.sqrt()
        torch.testing.assert_close(predicts.network_input(noisy, level), c_in * noisy)
        torch.testing.assert_close(predicts.clean(output, noisy, level), c_skip * noisy + c_out * output)
        torch.testing.assert_close(predicts.error_ratio(level), 1 / c_out)
        p, q = predicts.parts(level)
        torch.testing.assert_close((p * std) ** 2 + q**2, torch.ones_like(p))  # the target's variance


# The loss


class Knowing(nn.Module):
    """Gives the target of latents which are `value` everywhere, from what a network sees: its input and its time."""

    def __init__(self, config, value, error=0.0):
        super().__init__()
        self.process, self.value, self.error, self.times = Process.of(config), value, error, []

    def forward(self, inputs, times, labels):
        self.times.append(times)
        level = level_at(self.process.path, times).over(inputs)
        one = self.process.objective.network_input(torch.ones_like(inputs), level)
        noise = (inputs / one - level.signal * self.value) / level.noise
        return self.process.objective.target(torch.full_like(inputs, self.value), noise, level) + self.error


def loss_of(network, config, latents):
    return diffusion_loss(network, latents, None, Process.of(config), config, 2, torch.Generator().manual_seed(0))


@OBJECTIVES
def test_a_network_knows_the_noise_level_from_its_time(objective):
    config = diffusion_config(objective)
    latents = torch.full((512, 2, 2, 3), 0.5)
    network = Knowing(config, 0.5)
    assert loss_of(network, config, latents) < 1e-5
    assert loss_of(Knowing(config, 0.5, error=0.1), config, latents).item() == pytest.approx(0.01, rel=0.01)
    assert loss_of(Knowing(config, 0.6), config, latents) > 1e-3
    (times,) = network.times
    assert times.dtype == torch.float32
    assert (times >= 0).all()
    assert (times < 1000).all()
    assert times.max() - times.min() > 500


# The levels of a training


@pytest.mark.parametrize(
    ("objective", "options", "mean", "std"),
    [
        ("flow_matching", {}, 0.0, 1.0),
        ("flow_matching", {"noise_level": {"mean": -0.5}}, -0.5, 1.0),
        ("edm", {"normalisation": {"gamma": 2.0}}, -1.2, 1.2),
        ("edm", {}, -1.2 + math.log(2), 1.2),
        ("edm", {"noise_level": {"mean": -0.4, "std": 0.8}}, -0.4, 0.8),
    ],
)
def test_the_log_of_the_noise_is_normal(objective, options, mean, std):
    level = build_path(diffusion_config(objective, **options)).draw(4000, torch.Generator().manual_seed(0))
    logs = level.ratio.log()
    assert abs(logs.mean() - mean) < 4 * std / math.sqrt(4000)
    assert abs(logs.std() / std - 1) < 4 / math.sqrt(8000)
    within = ((logs - mean).abs() < std).float().mean()
    assert abs(within - 0.683) < 0.03


# The levels of a sampler


@OBJECTIVES
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_a_sampler_goes_from_noise_to_none(objective, steps):
    config = diffusion_config(objective)
    levels = build_path(config).grid(steps)
    ratios = torch.stack([level.ratio for level in levels])
    assert len(levels) == steps + 1
    assert levels[-1] is CLEAN
    assert (ratios.diff() < 0).all()
    assert ratios[0] > 100
    if objective == "flow_matching":
        assert levels[0].signal == 0


def test_edm_samples_at_the_levels_of_its_paper():
    levels = build_path(diffusion_config("edm", normalisation={"gamma": 2.0})).grid(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]  # Eq. 5
    torch.testing.assert_close(torch.stack([level.noise for level in levels[:-1]]), torch.tensor(expected).double())
    twice = build_path(diffusion_config("edm")).grid(18)  # latents of twice the standard deviation
    for level, other in zip(levels, twice, strict=True):
        torch.testing.assert_close(2 * level.noise, other.noise)


def test_a_time_shift_spends_more_steps_on_noise():
    path = build_path(diffusion_config("flow_matching"))
    even, shifted = path.grid(4), path.grid(4, time_shift=3.0)
    assert [level.noise.item() for level in even] == [1, 0.75, 0.5, 0.25, 0]
    assert [level.noise.item() for level in shifted] == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    for level in shifted[:-1]:
        torch.testing.assert_close(level.time, 1000 * level.noise)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("flow_matching", {"timesteps": 100}, "timesteps is 100, but objective is flow_matching"),
        ("edm", {"noise_schedule": "linear"}, "noise_schedule is linear, but objective is edm"),
        ("edm", {"timestep_ratio": 3.0}, "timestep_ratio is 3.0"),
        ("flow_matching", {"timestep_reweighting": True}, "timestep_reweighting is True"),
        ("flow_matching", {"min_snr_gamma": 5.0}, "min_snr_gamma is 5.0.*set it to null"),
        (
            "epsilon",
            {"noise_level": {"mean": 0.0}},
            "noise_level.mean is .*but objective is epsilon.*flow_matching and edm",
        ),
    ],
)
def test_an_option_of_another_objective_is_an_error(objective, options, message):
    with pytest.raises(ValueError, match=message):
        diffusion_config(objective, **options)
