"""Samplers: ways from noise to a latent over the noise levels of a path, given a prediction of x₀ at each.

Each is a function of the prediction, the first latents `(B, *grid, c)` and the levels, from the most noise to none; it
returns latents so shaped. Where it may, it takes a predicted x₀ as it is: so a clipped one stays within its bounds, and
the last step, which leads to no noise, leads to it. ε̂ is the noise that the prediction leaves: x = a x̂₀ + s ε̂.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

from torch import Tensor

from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.models.paths import NoiseLevel

Predict = Callable[[Tensor, NoiseLevel], Tensor]
"""x̂₀ of noisy latents, both `(B, *grid, c)`, at a level `()`."""

Sampler = Callable[[Predict, Tensor, Iterable[NoiseLevel]], Tensor]


def euler(predict: Predict, latents: Tensor, levels: Iterable[NoiseLevel]) -> Tensor:
    """x' = a' x̂₀ + s' ε̂: first order.

    On the straight path and on EDM's it is Euler's method; where a² + s² = 1 it is DDIM (Song et al., 2021, Eq. 12, η = 0),
    which is DPM-Solver++ of first order (Lu et al., 2022, Sec. 4.1).
    """
    for level, after in pairwise(levels):
        clean = predict(latents, level)
        latents = after.mix(clean, _noise(latents, clean, level))
    return latents


def heun(predict: Predict, latents: Tensor, levels: Iterable[NoiseLevel]) -> Tensor:
    """The trapezoidal rule for dx = x̂₀ da + ε̂ ds: second order, with two predictions a step but one in the last.

    On straight paths, as that of flow matching in u and EDM's in σ, it is Heun's method (Karras et al., 2022, Alg. 1).
    """
    for level, after in pairwise(levels):
        clean = predict(latents, level)
        noise = _noise(latents, clean, level)
        reached = after.mix(clean, noise)
        if after.noise > 0:
            clean_there = predict(reached, after)
            noise_there = _noise(reached, clean_there, after)
            signal_step, noise_step = after.signal - level.signal, after.noise - level.noise
            reached = latents + signal_step * (clean + clean_there) / 2 + noise_step * (noise + noise_there) / 2
        latents = reached
    return latents


def dpm_solver(predict: Predict, latents: Tensor, levels: Iterable[NoiseLevel]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022, Alg. 2): second order in λ = log(a/s), from one prediction a step.

    x' = (s'/s) x + (a' − a s'/s) D, where D carries x̂₀ on to the middle of the step. That of the first step and of the last,
    over which λ is infinite, is x̂₀ itself; so it is after a first step from pure noise, λ = −∞.
    """
    before, last_step = None, None
    for level, after in pairwise(levels):
        clean = predict(latents, level)
        step = level.ratio.log() - after.ratio.log()
        middle = clean
        if before is not None and last_step is not None and after.noise > 0:
            middle = clean + step / (2 * last_step) * (clean - before)
        shrink = after.noise / level.noise
        latents = shrink * latents + (after.signal - shrink * level.signal) * middle
        before, last_step = clean, step
    return latents


def ddpm(
    predict: Predict,
    latents: Tensor,
    levels: Iterable[NoiseLevel],
    draw_noise: Callable[[], Tensor],
    variance: str = "fixed_small",
) -> Tensor:
    """Ancestral sampling where a² + s² = 1 (Ho et al., 2020, Eqs. 6 and 7). The last step adds no noise.

    Args:
        draw_noise: gives standard normal noise `(B, *grid, c)`, for one step.
        variance: of a step: the posterior's β̃ (`fixed_small`), or β (`fixed_large`).
    """
    for level, after in pairwise(levels):
        clean = predict(latents, level)
        alpha = (level.signal / after.signal) ** 2
        beta, share = 1 - alpha, (after.noise / level.noise) ** 2
        latents = after.signal * beta / level.noise**2 * clean + alpha.sqrt() * share * latents
        if after.noise > 0:
            latents = latents + (beta if variance == "fixed_large" else share * beta).sqrt() * draw_noise()
    return latents


def build_sampler(config: SamplingConfig, draw_noise: Callable[[], Tensor]) -> Sampler:
    """The sampler that `config` asks for; `draw_noise` as `ddpm` has it, for samplers that draw any."""
    match config.sampler:
        case "ddpm":
            return partial(ddpm, draw_noise=draw_noise, variance=config.variance)
        case "ddim" | "euler":
            return euler
        case "heun":
            return heun
        case "dpm_solver":
            return dpm_solver


def _noise(latents: Tensor, clean: Tensor, level: NoiseLevel) -> Tensor:
    """ε̂."""
    return (latents - level.signal * clean) / level.noise
