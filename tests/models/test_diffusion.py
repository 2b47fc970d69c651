"""Loss and sampling against closed forms: for Gaussian data the optimal denoiser is known exactly."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from spatial_functa_pipeline.config import DiffusionConfig, LatentShape, SamplingConfig
from spatial_functa_pipeline.models.diffusion import (
    diffusion_loss,
    initial_noise,
    noise_schedule,
    sample,
    timestep_probabilities,
)

SHAPE = LatentShape((1, 1), 3)
MEAN, STD = torch.tensor([1.5, -0.5, 0.0]), torch.tensor([0.3, 1.0, 0.6])
CLASS_MEANS = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.5, 0.0], [0.2, 0.3, -0.4]])  # the last is the dummy label's
FAR = 1e9  # a clip range that clips nothing


def diffusion_config(**options):
    return DiffusionConfig(
        unet={"channels": 32, "multipliers": (1,), "residual_blocks": 1, "attention_resolutions": ()},
        mlp={"width": 32, "blocks": 1},
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
        **{"conditional": False, **options},
    )


class GaussianDenoiser(nn.Module):
    """The optimal denoiser of N(μ, diag σ²), μ that of the label if there are labels. Records what it is asked."""

    def __init__(self, config, means=MEAN, std=STD):
        super().__init__()
        self.config, self.means, self.std = config, means, std
        self.alphas_cumprod = noise_schedule(config).alphas_cumprod
        self.num_classes = len(means) - 1 if config.conditional else None
        self.calls = []

    def forward(self, noisy, timesteps, labels):
        self.calls.append((timesteps, labels))
        alpha_bar = self.alphas_cumprod[timesteps].view(-1, *[1] * (noisy.ndim - 1))
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        mean = self.means if labels is None else self.means[labels].view(-1, *[1] * (noisy.ndim - 2), 3)
        variance = signal**2 * self.std**2 + noise**2
        epsilon = noise * (noisy - signal * mean) / variance
        if self.config.prediction == "epsilon":
            return epsilon
        clean = mean + signal * self.std**2 * (noisy - signal * mean) / variance
        return signal * epsilon - noise * clean


class TrainedDenoiser(GaussianDenoiser):
    """Like a network after training: a small error everywhere, and no notion of inputs larger than it was shown."""

    def forward(self, noisy, timesteps, labels):
        return super().forward(noisy.clamp(-5, 5), timesteps, labels) + 0.02 * torch.sin(10 * noisy)


class Recorder(nn.Module):
    """Returns `scale(ᾱ) * noisy` and records what it is asked."""

    def __init__(self, schedule, scale):
        super().__init__()
        self.schedule, self.scale, self.calls = schedule, scale, []

    def forward(self, noisy, timesteps, labels):
        self.calls.append((noisy, timesteps, labels))
        return self.scale(self.schedule.alphas_cumprod[timesteps])[:, None, None, None] * noisy


def draw(denoiser, config, labels=None, clip_range=FAR, seed=0, **sampling):
    options = {"samples": 4000, "steps": 50, "batch_size": 4000, **sampling}
    return sample(denoiser, config, SamplingConfig(**options), labels, SHAPE, clip_range, seed, "cpu")


def loss_of(denoiser, config, latents, labels=None, seed=0, num_classes=2):
    generator = torch.Generator().manual_seed(seed)
    return diffusion_loss(denoiser, latents, labels, noise_schedule(config), config, num_classes, generator)


# --- the schedule and the time steps ----------------------------------------------------------------------------------


def test_cosine_schedule_has_its_closed_form():
    alphas = noise_schedule(diffusion_config()).alphas_cumprod[:990]
    steps = torch.arange(1, 991, dtype=torch.float64) / 1000
    expected = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(alphas.double(), expected, rtol=1e-3, atol=1e-7)


def test_linear_schedule_ends_in_noise_for_every_number_of_steps():
    paper = noise_schedule(diffusion_config(noise_schedule="linear"))
    torch.testing.assert_close(paper.betas[[0, -1]], torch.tensor([1e-4, 0.02]))
    for timesteps in (50, 100, 1000):
        config = diffusion_config(noise_schedule="linear", timesteps=timesteps)
        assert noise_schedule(config).alphas_cumprod[-1] < 1e-4
    with pytest.raises(ValueError, match="more than 20 timesteps"):
        noise_schedule(diffusion_config(noise_schedule="linear", timesteps=20))


@pytest.mark.parametrize("ratio", [1.0, 3.0, 7.0])
def test_timestep_probabilities_fall_linearly(ratio):
    probabilities = timestep_probabilities(1000, ratio)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[0] / probabilities[-1] == pytest.approx(ratio)
    torch.testing.assert_close(probabilities.diff(), torch.full((999,), (1 - ratio) / 999).double() * probabilities[-1])


def test_timesteps_are_drawn_with_those_probabilities():
    config = diffusion_config(timesteps=10, timestep_ratio=4.0)
    recorder = Recorder(noise_schedule(config), lambda alphas: alphas)
    batch = 50_000
    loss_of(recorder, config, torch.zeros(batch, 1, 1, 1))
    observed = torch.bincount(recorder.calls[0][1], minlength=10)
    expected = batch * torch.linspace(4, 1, 10).double() / 25  # the weights 4, …, 1 sum to 25
    assert ((observed - expected).abs() < 5 * expected.sqrt()).all()


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_loss_vanishes_for_the_exact_target_only():
    latents = torch.zeros(64, 2, 2, 3)  # so that x_t = √(1 − ᾱ) ε, and v = √ᾱ ε
    predict = {
        "epsilon": lambda alphas: 1 / (1 - alphas).sqrt(),
        "v_prediction": lambda alphas: (alphas / (1 - alphas)).sqrt(),
    }
    for prediction in predict:
        config = diffusion_config(prediction=prediction)
        for predicted, scale in predict.items():
            loss = loss_of(Recorder(noise_schedule(config), scale), config, latents)
            assert (loss < 1e-9) == (predicted == prediction)


def test_velocity_target_has_the_sign_of_its_definition():
    config = diffusion_config(prediction="v_prediction", timesteps=1)
    latents = torch.full((20_000, 1, 1, 1), 2.0)
    alpha_bar = noise_schedule(config).alphas_cumprod[0].item()
    loss = loss_of(Recorder(noise_schedule(config), torch.zeros_like), config, latents)
    assert loss.item() == pytest.approx(alpha_bar + (1 - alpha_bar) * 4, rel=0.05)  # E v²

    # Adding √(1 − ᾱ) x₀ to v leaves √ᾱ ε.
    constant = Recorder(noise_schedule(config), torch.zeros_like)
    constant.register_forward_hook(lambda *_: torch.full_like(latents, -math.sqrt(1 - alpha_bar) * 2))
    assert loss_of(constant, config, latents).item() == pytest.approx(alpha_bar, rel=0.05)


@pytest.mark.parametrize("reweighting", [False, True])
def test_reweighting_makes_the_expected_loss_that_of_uniform_timesteps(reweighting):
    config = diffusion_config(timesteps=10, timestep_ratio=7.0, timestep_reweighting=reweighting)
    schedule = noise_schedule(config)
    loss = loss_of(Recorder(schedule, torch.ones_like), config, torch.zeros(20_000, 1, 1, 8))
    errors = (1 - (1 - schedule.alphas_cumprod).sqrt()) ** 2  # E (√(1 − ᾱ) ε − ε)²
    weights = torch.full((10,), 0.1) if reweighting else torch.linspace(7, 1, 10) / 40
    other = torch.linspace(7, 1, 10) / 40 if reweighting else torch.full((10,), 0.1)
    assert loss.item() == pytest.approx((weights * errors).sum().item(), rel=0.04)
    assert abs(loss.item() / (other * errors).sum().item() - 1) > 0.2


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_share_of_labels_that_become_the_dummy_label(share):
    config = diffusion_config(conditional=True, dummy_label_share=share)
    recorder = Recorder(noise_schedule(config), lambda alphas: alphas)
    labels = torch.arange(10).repeat(2000)
    given = labels.clone()
    loss_of(recorder, config, torch.zeros(20_000, 1, 1, 1), labels, num_classes=10)
    seen = recorder.calls[0][2]
    dropped = seen == 10
    assert abs(dropped.sum().item() - share * 20_000) <= 5 * math.sqrt(20_000 * share * (1 - share))
    assert torch.equal(seen[~dropped], labels[~dropped])
    assert torch.equal(labels, given)


@pytest.mark.parametrize("conditional", [False, True])
def test_same_generator_gives_the_same_loss_and_noise(conditional):
    config = diffusion_config(conditional=conditional, timestep_ratio=3.0)
    recorder = Recorder(noise_schedule(config), lambda alphas: alphas)
    latents, labels = torch.randn(16, 2, 2, 3), torch.zeros(16, dtype=torch.int64) if conditional else None
    torch.manual_seed(1)
    first = loss_of(recorder, config, latents, labels)
    torch.manual_seed(2)  # the global generator must not matter
    assert torch.equal(first, loss_of(recorder, config, latents, labels))
    assert torch.equal(recorder.calls[0][0], recorder.calls[1][0])
    assert not torch.equal(first, loss_of(recorder, config, latents, labels, seed=1))


def test_labels_must_fit_the_configuration():
    latents, labels = torch.zeros(2, 1, 1, 3), torch.zeros(2, dtype=torch.int64)
    for conditional, given in ((True, None), (False, labels)):
        config = diffusion_config(conditional=conditional)
        with pytest.raises(ValueError, match=r"diffusion\.conditional is"):
            loss_of(Recorder(noise_schedule(config), torch.ones_like), config, latents, given)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"),
    [("ddpm", 1000, 0.02), ("ddpm", 250, 0.03), ("ddim", 200, 0.03), ("dpm_solver", 30, 0.03)],
)
def test_optimal_denoiser_recovers_its_gaussian(sampler, steps, tolerance, schedule):
    config = diffusion_config(noise_schedule=schedule)
    samples = draw(GaussianDenoiser(config), config, sampler=sampler, steps=steps).flatten(0, -2)
    standard_error = STD / math.sqrt(len(samples))
    assert samples.dtype == torch.float32
    # `tolerance` is the bias of finitely many steps; the other term is the sampling error.
    assert ((samples.mean(dim=0) - MEAN).abs() < 4 * standard_error + tolerance * STD).all()
    assert ((samples.std(dim=0) - STD).abs() < 4 * standard_error + tolerance * STD).all()
    correlations = torch.corrcoef(samples.T)[~torch.eye(3, dtype=bool)]
    assert correlations.abs().max() < 4 / math.sqrt(len(samples))


@pytest.mark.parametrize("clip_range", [FAR, 1.0])
def test_ddim_equals_diffusers_ddim(clip_range):
    config = diffusion_config()
    denoiser = GaussianDenoiser(config)
    reference = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", clip_sample_range=clip_range
    )
    reference.set_timesteps(50)
    latents = initial_noise(SHAPE, 3, range(8))
    for timestep in reference.timesteps:
        epsilon = denoiser(latents, timestep.repeat(8), None)
        latents = reference.step(epsilon, timestep, latents, use_clipped_model_output=True).prev_sample
    samples = draw(denoiser, config, clip_range=clip_range, seed=3, sampler="ddim", samples=8)
    torch.testing.assert_close(samples, latents, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_epsilon_and_velocity_of_the_optimal_denoiser_give_the_same_samples(sampler):
    both = []
    for prediction in ("epsilon", "v_prediction"):
        config = diffusion_config(prediction=prediction)
        both.append(draw(GaussianDenoiser(config), config, sampler=sampler, samples=16))
    torch.testing.assert_close(*both, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 50), ("ddim", 50), ("dpm_solver", 20)])
def test_clipping_keeps_an_imperfect_denoiser_bounded(sampler, steps):
    config = diffusion_config()  # cosine and ε: an error of 0.02 in ε is one of 400 in x₀ at the last time step
    denoiser = TrainedDenoiser(config)
    clipped = draw(denoiser, config, clip_range=4.5, sampler=sampler, samples=1000, steps=steps).flatten(0, -2)
    assert clipped.abs().max() <= 4.5
    assert ((clipped.mean(dim=0) - MEAN).abs() < 0.15).all()
    assert ((clipped.std(dim=0) / STD - 1).abs() < 0.15).all()
    unclipped = draw(denoiser, config, sampler=sampler, samples=1000, steps=steps)
    assert unclipped.std() > 10


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [1, 3, 7, 60, 100])
def test_samplers_take_any_number_of_steps_from_the_last_timestep_on(sampler, steps):
    config = diffusion_config(timesteps=100)
    denoiser = GaussianDenoiser(config)
    samples = draw(denoiser, config, clip_range=5.0, sampler=sampler, samples=10, steps=steps)
    timesteps = [int(call[0][0]) for call in denoiser.calls]
    assert len(timesteps) == steps
    assert timesteps[0] == 99
    assert timesteps[-1] >= 0
    assert all(first > second for first, second in pairwise(timesteps))
    assert samples.isfinite().all()


def test_guidance_extrapolates_between_the_unconditional_and_the_conditional_mean():
    # ε is affine in the mean of a Gaussian, so guided sampling samples N(μ_u + w (μ_c − μ_u), σ²).
    config = diffusion_config(conditional=True)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS)
    labels = torch.tensor([0, 1]).repeat(2000)
    for scale in (0.0, 0.5, 1.0, 3.0, None):
        samples = draw(denoiser, config, labels, sampler="dpm_solver", steps=30, guidance_scale=scale).flatten(1)
        for label in (0, 1):
            weight = 1.0 if scale is None else scale
            expected = CLASS_MEANS[2] + weight * (CLASS_MEANS[label] - CLASS_MEANS[2])
            of_class = samples[labels == label]
            tolerance = 4 * STD / math.sqrt(len(of_class)) + 0.02 * STD
            assert ((of_class.mean(dim=0) - expected).abs() < tolerance).all()


@pytest.mark.parametrize(
    ("scale", "asked"), [(None, [0, 1]), (1.0, [0, 1]), (0.0, [2, 2]), (5.0, [2, 2, 0, 1]), (0.5, [2, 2, 0, 1])]
)
def test_guidance_evaluates_the_denoiser_no_more_than_needed(scale, asked):
    config = diffusion_config(conditional=True)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS)
    draw(denoiser, config, torch.tensor([0, 1]), steps=10, guidance_scale=scale)
    assert [labels.tolist() for _, labels in denoiser.calls] == [asked] * 10


def test_initial_noise_depends_on_seed_and_index_alone():
    noise = initial_noise(LatentShape((4, 4), 8), 7, range(64))
    assert noise.shape == (64, 4, 4, 8)
    assert torch.equal(noise[10:20], initial_noise(LatentShape((4, 4), 8), 7, range(10, 20)))
    assert len(noise.flatten(1).unique(dim=0)) == 64
    neighbour = initial_noise(LatentShape((4, 4), 8), 8, range(64))
    assert len(torch.cat([noise, neighbour]).flatten(1).unique(dim=0)) == 128
    assert abs(noise.mean()) < 4 / math.sqrt(noise.numel())
    assert abs(noise.std() - 1) < 4 / math.sqrt(2 * noise.numel())


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
def test_batch_size_does_not_change_the_samples(sampler):
    config = diffusion_config(conditional=True)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS)
    labels = torch.tensor([0, 1, 1, 0, 1])
    whole = draw(denoiser, config, labels, sampler=sampler, steps=10, guidance_scale=2.0, batch_size=5)
    parts = draw(denoiser, config, labels, sampler=sampler, steps=10, guidance_scale=2.0, batch_size=2)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)


def test_ddpm_repeats_itself_and_draws_new_noise_for_each_batch():
    config = diffusion_config(timesteps=20)
    denoiser = GaussianDenoiser(config)
    first, again = (draw(denoiser, config, sampler="ddpm", steps=20, samples=2000, batch_size=1000) for _ in range(2))
    assert torch.equal(first, again)
    batches = ((first - MEAN) / STD).view(2, -1)
    assert abs(torch.corrcoef(batches)[0, 1]) < 0.1  # with the same step noise in both batches it is near 1
    assert not torch.equal(first, draw(denoiser, config, seed=1, sampler="ddpm", steps=20, samples=2000))


def test_sampling_counts_samples_and_sets_evaluation_mode():
    config = diffusion_config(conditional=True)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS).train()
    samples = draw(denoiser, config, torch.tensor([0, 1, 0]), samples=99, steps=2)
    assert samples.shape == (3, *SHAPE.shape)
    assert not samples.requires_grad
    assert not denoiser.training
    config = diffusion_config()
    assert draw(GaussianDenoiser(config), config, samples=5, steps=2, batch_size=2).shape == (5, *SHAPE.shape)


def test_sampling_refuses_what_does_not_fit():
    config = diffusion_config(timesteps=10)
    denoiser = GaussianDenoiser(config)
    with pytest.raises(ValueError, match=r"guidance_scale is 2\.0, but there are no labels"):
        draw(denoiser, config, steps=5, guidance_scale=2.0)
    with pytest.raises(ValueError, match=r"steps \(11\) must not exceed"):
        draw(denoiser, config, steps=11)
    with pytest.raises(ValueError, match="clip_range must be positive"):
        draw(denoiser, config, steps=5, clip_range=0.0)
