"""Samplers against closed forms: for Gaussian data both the best prediction of x₀ and the way of each latent are known."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from spatial_functa_pipeline.models.paths import CLEAN, DiscretePath, ExplodingPath, NoiseLevel, StraightPath
from spatial_functa_pipeline.models.samplers import ddpm, dpm_solver, euler, heun

MEAN = torch.tensor([1.5, -0.5, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2, -0.1], [0.2, 0.9, 0.3], [-0.1, 0.3, 0.4]], dtype=torch.float64)
TIMESTEPS = 4096
PATHS = {
    "discrete": DiscretePath(
        torch.linspace(0, math.pi / 2, TIMESTEPS + 1, dtype=torch.float64)[1:].cos() ** 2, torch.ones(TIMESTEPS), False
    ),
    "straight": StraightPath(0.0, 1.0),
    "exploding": ExplodingPath(-1.2, 1.2, 0.5),
}
ORDERS = {euler: 1, heun: 2, dpm_solver: 2}
EVERY = pytest.mark.parametrize("name", PATHS)
DETERMINISTIC = pytest.mark.parametrize("sampler", ORDERS, ids=lambda sampler: sampler.__name__)


def power(matrix, exponent):
    """Of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def marginal(level):
    """Covariance of the noisy latents."""
    return level.signal**2 * COVARIANCE + level.noise**2 * torch.eye(3)


def best_prediction(latents, level):
    """E[x₀ | x] of N(`MEAN`, `COVARIANCE`)."""
    return MEAN + level.signal * (latents - level.signal * MEAN) @ torch.linalg.solve(marginal(level), COVARIANCE)


def true_end(latents, level):
    """Where the probability-flow ODE takes latents from a level to: (x − aμ) in units of the marginal stays."""
    whitened = (latents - level.signal * MEAN) @ power(marginal(level), -0.5)
    return MEAN + whitened @ power(COVARIANCE, 0.5)


def affine_map(sampler, levels, **options):
    """Offset `(3,)` and matrix `(3, 3)` of a sampler's end, which for Gaussian data is affine in its beginning."""
    corners = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    ends = sampler(best_prediction, corners, levels, **options)
    return ends[0], ends[1:] - ends[0]


@EVERY
@DETERMINISTIC
def test_the_error_falls_at_the_samplers_order(sampler, name):
    path, errors = PATHS[name], []
    noise = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for steps in (128, 256, 512):
        levels = path.grid(steps)
        start = levels[0].noise * noise
        errors.append((sampler(best_prediction, start, levels) - true_end(start, levels[0])).norm())
    rates = [math.log2(before / after) for before, after in pairwise(errors)]
    order = ORDERS[sampler]
    # Of DPM-Solver++ it is h² log(1/h): towards either end a step in λ does not become small with the others.
    assert order - 0.35 < rates[-1] < order + 0.15, rates
    assert errors[-1] < (0.03 if order == 1 else 3e-4)


@EVERY
@DETERMINISTIC
def test_samples_have_the_mean_and_covariance_of_the_data(sampler, name):
    levels = PATHS[name].grid(200)
    offset, matrix = affine_map(sampler, levels)
    start = levels[0].noise
    # What is left is the data's share in the first latent, which a sampler begins without.
    tolerance = 0.03 if sampler is euler else 0.002
    tolerance += float((1 / levels[0].ratio) * MEAN.norm() * 1.5)
    torch.testing.assert_close(offset, MEAN, atol=tolerance, rtol=0)
    torch.testing.assert_close(start**2 * matrix.T @ matrix, COVARIANCE, atol=tolerance, rtol=0)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_has_the_mean_and_covariance_of_the_data(variance):
    """Each number that it draws reaches the end by a row of its own: the covariance is exact, with no sampling error."""
    errors = []
    for steps in (64, 256):
        levels = PATHS["discrete"].grid(steps)
        impulses = torch.eye(3 * steps, dtype=torch.float64).view(3 * steps, steps, 3)
        impulses = torch.cat([torch.zeros(1, steps, 3, dtype=torch.float64), impulses])
        draws = iter(impulses.unbind(1))
        ends = ddpm(best_prediction, next(draws), levels, lambda draws=draws: next(draws), variance)
        assert next(draws, None) is None  # the last step adds no noise
        offset, columns = ends[0], ends[1:] - ends[0]
        torch.testing.assert_close(offset, MEAN, atol=0.05, rtol=0)
        errors.append((columns.T @ columns - COVARIANCE).norm())
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 0.06


@EVERY
@DETERMINISTIC
def test_a_mixture_of_two_points_ends_at_these(sampler, name):
    """x₀ = ±m alike: the best prediction is m tanh(a m x/s²), and each latent ends on the side that it is on."""
    levels = PATHS[name].grid(64)

    def predict(latents, level):
        return torch.tanh(level.signal * latents / level.noise**2)

    quantiles = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    start = levels[0].noise * math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    torch.testing.assert_close(sampler(predict, start, levels), start.sign(), atol=0.02, rtol=0)


@EVERY
@DETERMINISTIC
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_prediction_that_is_certain_is_where_all_ends(sampler, name, steps):
    certain = torch.tensor([[0.25, -4.0, 1e3]], dtype=torch.float64)
    levels = PATHS[name].grid(steps)
    noise = levels[0].noise * torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(sampler(lambda latents, level: certain, noise, levels), certain)


def test_pure_noise_is_a_level_like_others():
    """a = 0, where log(a/s) is −∞; the first step is then the mixture that its prediction says."""
    nothing = NoiseLevel(*torch.tensor([0.0, 1.0, 999.0], dtype=torch.float64))
    half = NoiseLevel(*torch.tensor([0.6, 0.8, 500.0], dtype=torch.float64))
    seen = []

    def predict(latents, level):
        seen.append(latents)
        return torch.full_like(latents, 2.0)

    for sampler in (euler, dpm_solver):
        assert sampler(predict, torch.ones(1, dtype=torch.float64), [nothing, half, CLEAN]).item() == 2
        assert seen[-1].item() == pytest.approx(0.8 + 0.6 * 2)


# diffusers' own


def reference(scheduler, timesteps, latents, **options):
    """What a scheduler of diffusers makes of `best_prediction`, in float32."""
    scheduler.set_timesteps(timesteps=timesteps)
    for timestep in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[timestep].double()
        level = NoiseLevel(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), timestep)
        clean = best_prediction(latents.double(), level).float()
        latents = scheduler.step(clean, timestep, latents, return_dict=False, **options)[0]
    return latents


@pytest.mark.parametrize("steps", [4, 12, 20])
@pytest.mark.parametrize("order", [1, 2])
def test_dpm_solver_is_that_of_diffusers(order, steps):
    scheduler = DPMSolverMultistepScheduler(
        1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample", solver_order=order
    )
    path = DiscretePath(scheduler.alphas_cumprod, torch.ones(1000), False)
    levels, noise = path.grid(steps), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    found = (euler if order == 1 else dpm_solver)(best_prediction, noise.double(), levels)
    expected = reference(scheduler, [int(level.time) for level in levels[:-1]], noise)
    torch.testing.assert_close(found.float(), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_is_that_of_diffusers(variance):
    scheduler = DDPMScheduler(
        60, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False, variance_type=variance
    )
    path, generators = DiscretePath(scheduler.alphas_cumprod, torch.ones(60), False), [torch.Generator() for _ in "12"]
    levels, noise = path.grid(60), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    found = ddpm(best_prediction, noise.double(), levels, lambda: torch.randn(8, 3, generator=generators[0]), variance)
    expected = reference(scheduler, [int(level.time) for level in levels[:-1]], noise, generator=generators[1])
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=1e-4)
