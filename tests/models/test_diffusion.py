"""Loss and sampling against closed forms: for Gaussian data the optimal denoiser is known exactly."""

import json
import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from told_levels import level_at
from torch import nn

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss, min_snr_weights
from spatial_functa_pipeline.models.guidance import Guidance, GuidedDenoiser
from spatial_functa_pipeline.models.objectives import Epsilon, Velocity
from spatial_functa_pipeline.models.paths import NoiseLevel, build_path, noise_schedule, timestep_probabilities
from spatial_functa_pipeline.models.sample_seeds import initial_noise, sample_generator, sample_seed
from spatial_functa_pipeline.models.sampling import network_evaluations, sample, sampling_settings

SHAPE = LatentShape((1, 1), 3)
MEAN, STD = torch.tensor([1.5, -0.5, 0.0]), torch.tensor([0.3, 1.0, 0.6])
CLASS_MEANS = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.5, 0.0], [0.2, 0.3, -0.4]])  # the last is the dummy label's
FAR = 1e9  # a clip range that clips nothing
WAYS = [
    *(("epsilon", sampler) for sampler in ("ddpm", "ddim", "dpm_solver", "heun")),
    *((objective, sampler) for objective in ("flow_matching", "edm") for sampler in ("euler", "heun", "dpm_solver")),
]


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
        self.config, self.process, self.means, self.std = config, Process.of(config), means, std
        self.num_classes = len(means) - 1 if config.conditional else None
        self.calls = []

    def forward(self, inputs, timesteps, labels):
        self.calls.append((timesteps, labels))
        objective = self.process.objective
        level = level_at(self.process.path, timesteps).over(inputs)
        noisy = inputs / objective.network_input(torch.ones_like(inputs), level)
        mean = self.means if labels is None else self.means[labels].view(-1, *[1] * (noisy.ndim - 2), 3)
        whitened = (noisy - level.signal * mean) / (level.signal**2 * self.std**2 + level.noise**2)
        return objective.target(mean + level.signal * self.std**2 * whitened, level.noise * whitened, level)


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
        return self.scale(self.schedule[timesteps.long()])[:, None, None, None] * noisy


def draw(denoiser, config, labels=None, clip_range=FAR, seed=0, first=0, guide=None, **sampling):
    options = {"samples": 4000, "batch_size": 4000, **sampling}
    clip_range = torch.as_tensor(clip_range)
    return sample(
        denoiser, config, SamplingConfig(**options), labels, SHAPE, clip_range, seed, "cpu", first, guide=guide
    )


def noise_of_samples(seed, numbers, shape=SHAPE):
    """The x_T that these samples start from."""
    return initial_noise(shape, [sample_generator(seed, number) for number in numbers])


def loss_of(denoiser, config, latents, labels=None, seed=0, num_classes=2):
    generator = torch.Generator().manual_seed(seed)
    return diffusion_loss(denoiser, latents, labels, Process.of(config), config, num_classes, generator)


# --- the schedule and the time steps ----------------------------------------------------------------------------------


def test_cosine_schedule_has_its_closed_form():
    alphas = noise_schedule(diffusion_config())[:990]
    steps = torch.arange(1, 991, dtype=torch.float64) / 1000
    expected = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(alphas.double(), expected, rtol=1e-3, atol=1e-7)


def test_linear_schedule_ends_in_noise_for_every_number_of_steps():
    paper = noise_schedule(diffusion_config(noise_schedule="linear"))
    torch.testing.assert_close(
        1 - paper[[0, -1]] / torch.cat([torch.ones(1), paper[-2:-1]]), torch.tensor([1e-4, 0.02])
    )
    for timesteps in (50, 100, 1000):
        config = diffusion_config(noise_schedule="linear", timesteps=timesteps)
        assert noise_schedule(config)[-1] < 1e-4
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
    observed = torch.bincount(recorder.calls[0][1].long(), minlength=10)
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
        config = diffusion_config(objective=prediction)
        for predicted, scale in predict.items():
            loss = loss_of(Recorder(noise_schedule(config), scale), config, latents)
            assert (loss < 1e-9) == (predicted == prediction)


def test_velocity_target_has_the_sign_of_its_definition():
    config = diffusion_config(objective="v_prediction", timesteps=1)
    latents = torch.full((20_000, 1, 1, 1), 2.0)
    alpha_bar = noise_schedule(config)[0].item()
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
    errors = (1 - (1 - schedule).sqrt()) ** 2  # E (√(1 − ᾱ) ε − ε)²
    weights = torch.full((10,), 0.1) if reweighting else torch.linspace(7, 1, 10) / 40
    other = torch.linspace(7, 1, 10) / 40 if reweighting else torch.full((10,), 0.1)
    assert loss.item() == pytest.approx((weights * errors).sum().item(), rel=0.04)
    assert abs(loss.item() / (other * errors).sum().item() - 1) > 0.2


@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_weights_are_those_of_their_paper(gamma):
    """min(SNR, γ) on the error of x₀, for which ‖ε − ε̂‖² = SNR ‖x₀ − x̂₀‖² and ‖v − v̂‖² = (SNR + 1) ‖x₀ − x̂₀‖²."""
    alphas = noise_schedule(diffusion_config()).double()
    level = NoiseLevel(alphas.sqrt(), (1 - alphas).sqrt(), torch.arange(1000))
    snr = alphas / (1 - alphas)
    assert snr.min() < gamma < snr.max()
    expected = torch.minimum(snr, torch.tensor(gamma))
    torch.testing.assert_close(min_snr_weights(Epsilon(), level, gamma) * snr, expected)
    torch.testing.assert_close(min_snr_weights(Velocity(), level, gamma) * (snr + 1), expected)


def test_min_snr_makes_the_loss_that_of_the_clean_latent():
    """With it, a denoiser that is wrong by δ in x₀ has the same loss, whichever of ε and v it predicts."""
    losses = {}
    for prediction, error in {"epsilon": lambda snr: snr.sqrt(), "v_prediction": lambda snr: (snr + 1).sqrt()}.items():
        config = diffusion_config(objective=prediction, timesteps=50, min_snr_gamma=5.0, timestep_ratio=2.0)
        schedule = noise_schedule(config)
        exact = {
            "epsilon": lambda alphas: 1 / (1 - alphas).sqrt(),
            "v_prediction": lambda alphas: (alphas / (1 - alphas)).sqrt(),
        }[prediction]
        recorder = Recorder(schedule, exact)

        def wrong(module, inputs, predicted, schedule=schedule, error=error):
            alphas = schedule[inputs[1].long()]
            return predicted + 0.1 * error(alphas / (1 - alphas))[:, None, None, None]

        recorder.register_forward_hook(wrong)
        losses[prediction] = loss_of(recorder, config, torch.zeros(20_000, 1, 1, 1))
        snr = schedule / (1 - schedule)
        expected = 0.01 * (timestep_probabilities(50, 2.0) * snr.clamp(max=5)).sum()
        assert losses[prediction].item() == pytest.approx(expected.item(), rel=0.03)
    torch.testing.assert_close(*losses.values(), rtol=1e-3, atol=0)


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
        with pytest.raises(ValueError, match=r"^conditional is"):
            loss_of(Recorder(noise_schedule(config), torch.ones_like), config, latents, given)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, {"sampler": "ddpm", "steps": 250, "samples": 1000}),
        ({"noise_schedule": "linear"}, {"sampler": "dpm_solver", "steps": 30}),
        ({"objective": "v_prediction"}, {"sampler": "heun", "steps": 30}),
        ({"objective": "flow_matching"}, {"sampler": "euler", "steps": 100, "time_shift": 1.5}),
        ({"objective": "flow_matching"}, {"sampler": "dpm_solver", "steps": 30}),
        ({"objective": "edm", "normalisation": {"gamma": 2.0}}, {"sampler": "heun", "steps": 18}),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_optimal_denoiser_recovers_its_gaussian(options, sampling):
    """With the samplers, which test_samplers.py holds against closed forms, all that is around them."""
    config = diffusion_config(**options)
    samples = draw(GaussianDenoiser(config), config, **sampling).flatten(0, -2)
    standard_error = STD / math.sqrt(len(samples))
    assert samples.dtype == torch.float32
    # 3 % is the bias of finitely many steps; the other term is the sampling error.
    assert ((samples.mean(dim=0) - MEAN).abs() < 4 * standard_error + 0.03 * STD).all()
    assert ((samples.std(dim=0) - STD).abs() < 4 * standard_error + 0.03 * STD).all()
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
    latents = noise_of_samples(3, range(8))
    for timestep in reference.timesteps:
        epsilon = denoiser(latents, timestep.repeat(8), None)
        latents = reference.step(epsilon, timestep, latents, use_clipped_model_output=True).prev_sample
    samples = draw(denoiser, config, clip_range=clip_range, seed=3, sampler="ddim", samples=8)
    torch.testing.assert_close(samples, latents, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_epsilon_and_velocity_of_the_optimal_denoiser_give_the_same_samples(sampler):
    both = []
    for prediction in ("epsilon", "v_prediction"):
        config = diffusion_config(objective=prediction)
        both.append(draw(GaussianDenoiser(config), config, sampler=sampler, samples=16))
    torch.testing.assert_close(*both, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("scale", [None, 4.0])
@pytest.mark.parametrize(("objective", "sampler"), WAYS)
def test_samples_stay_within_the_clip_range(objective, sampler, scale):
    config = diffusion_config(conditional=True, objective=objective)
    denoiser = GaussianDenoiser(config, means=3 * CLASS_MEANS)
    labels, how = torch.tensor([0, 1]).repeat(250), {"sampler": sampler, "steps": 20, "guidance_scale": scale}
    assert draw(denoiser, config, labels, clip_range=1.5, **how).abs().max() <= 1.5 + 1e-5
    assert draw(denoiser, config, labels, **how).abs().max() > 3


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_each_number_has_a_clip_range_of_its_own(sampler):
    config = diffusion_config()
    ranges = torch.tensor([1.25, 80.0, 0.0])
    samples = draw(GaussianDenoiser(config), config, clip_range=ranges, sampler=sampler).flatten(0, -2)
    assert (samples.abs() <= ranges + 1e-5).all()
    assert (samples[:, 0] > 1.24).any()
    assert samples[:, 1].std() > 0.9
    in_grid = draw(GaussianDenoiser(config), config, clip_range=ranges.expand(SHAPE.shape), sampler=sampler)
    assert torch.equal(in_grid.flatten(0, -2), samples)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_clipping_can_be_left_out(sampler):
    config = diffusion_config()
    denoiser, how = TrainedDenoiser(config), {"sampler": sampler, "steps": 20, "samples": 200}
    free = draw(denoiser, config, clip_range=4.5, clip_denoised=False, **how)
    assert torch.equal(free, draw(denoiser, config, clip_range=FAR, **how))
    assert free.std() > 10


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_adds_the_variance_that_is_asked_for(variance):
    """For Gaussian data the optimal denoiser is affine, so the variance of x_t follows from step to step (Ho, Eq. 7)."""
    config, steps = diffusion_config(timesteps=100), 10
    alpha_bars = noise_schedule(config).double()[9::10].flip(0).tolist()
    expected = {choice: torch.ones(3, dtype=torch.float64) for choice in ("fixed_small", "fixed_large")}
    for alpha_bar, after in zip(alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        alpha = alpha_bar / after
        clean = math.sqrt(alpha_bar) * STD**2 / (alpha_bar * STD**2 + 1 - alpha_bar)  # dx̂₀/dx_t
        gain = (math.sqrt(after) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - after)) / (1 - alpha_bar)
        smaller = (1 - alpha) * (1 - after) / (1 - alpha_bar)
        for choice, noise in (("fixed_small", smaller), ("fixed_large", 1 - alpha)):
            expected[choice] = gain**2 * expected[choice] + (noise if after < 1 else 0)
    assert (expected["fixed_large"] / expected["fixed_small"] > 1.3).all()
    samples = draw(
        GaussianDenoiser(config), config, sampler="ddpm", steps=steps, variance=variance, samples=8000, batch_size=8000
    ).flatten(0, -2)
    ratio = samples.double().var(dim=0) / expected[variance]
    assert ((ratio - 1).abs() < 4 * math.sqrt(2 / len(samples))).all(), ratio


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


def test_a_guided_denoiser_is_the_formula_within_the_interval_and_conditional_outside():
    config = diffusion_config(conditional=True)
    denoiser, path = GaussianDenoiser(config, means=CLASS_MEANS), build_path(config)
    guidance = Guidance.of(SamplingConfig(samples=2, batch_size=2, guidance_scale=3.0, guidance_interval=(0.5, 2.0)))
    noisy, labels = torch.randn(2, 1, 1, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    seen = set()
    for timestep in (0, 300, 500, 700, 999):
        level = path.at(torch.tensor(timestep))
        scale = 3.0 if 0.5 < (1 / path.alpha_bars[timestep].item() - 1) ** 0.5 <= 2.0 else 1.0
        timesteps = torch.full((2,), timestep)
        conditional, dummy = (denoiser(noisy, timesteps, given) for given in (labels, torch.tensor([2, 2])))
        predicted = GuidedDenoiser(denoiser, guidance)(noisy, level, labels)
        torch.testing.assert_close(predicted, dummy + scale * (conditional - dummy))
        assert guidance.evaluations_at(level) == (2 if scale == 3.0 else 1)
        seen.add(scale)
    assert seen == {1.0, 3.0}


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(("objective", "sampler"), [("epsilon", "ddpm"), ("edm", "heun")])
def test_autoguidance_is_away_from_the_guide_for_the_same_class(objective, sampler, conditional):
    # As by classes: x₀ = x₋ + w (x₊ − x₋), where the guide's data are of another mean.
    config = diffusion_config(conditional=conditional, objective=objective)
    shift, means = torch.tensor([0.5, 0.0, -0.2]), CLASS_MEANS if conditional else MEAN
    denoiser, guide = GaussianDenoiser(config, means=means), GaussianDenoiser(config, means=means - shift)
    how = {"sampler": sampler, "steps": 12, "guidance": "autoguidance", "samples": 40, "batch_size": 20}
    labels = torch.tensor([0, 1]).repeat(20) if conditional else None
    moved = GaussianDenoiser(config, means=means + shift)  # w = 2
    found = draw(denoiser, config, labels, guidance_scale=2.0, guide=guide, **how)
    expected = draw(moved, config, labels, **{**how, "guidance": "classifier_free"})
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for asked, other in zip(denoiser.calls, guide.calls, strict=True):
        assert torch.equal(asked[0], other[0])
        assert asked[1] is other[1] is None or torch.equal(asked[1], other[1])
    assert len(denoiser.calls) == 2 * (23 if sampler == "heun" else 12)
    unguided = draw(denoiser, config, labels, guidance_scale=1.0, **how)
    assert torch.equal(unguided, draw(denoiser, config, labels, **{**how, "guidance": "classifier_free"}))
    with pytest.raises(ValueError, match="no guide was kept with this denoiser"):
        draw(denoiser, config, labels, guidance_scale=2.0, **how)


class MixtureDenoiser(GaussianDenoiser):
    """Optimal for two equally likely classes N(μ_k, diag σ²): the dummy label is their mixture, no Gaussian."""

    def forward(self, noisy, timesteps, labels):
        classes = [super(MixtureDenoiser, self).forward(noisy, timesteps, torch.full_like(labels, k)) for k in (0, 1)]
        alpha_bar = self.process.path.alpha_bars[timesteps.long()].view(-1, *[1] * (noisy.ndim - 1))
        means = self.means[:2].view(2, *[1] * (noisy.ndim - 1), 3)
        variance = alpha_bar * self.std**2 + 1 - alpha_bar
        logits = -((noisy - alpha_bar.sqrt() * means) ** 2 / variance).flatten(2).sum(dim=-1) / 2  # (2, B)
        weights = torch.where(labels == 2, logits.softmax(dim=0), torch.stack([labels == 0, labels == 1]).float())
        return sum(w.view_as(alpha_bar) * predicted for w, predicted in zip(weights, classes, strict=True))


def guided_trajectory(noise, label, scale, interval=(0.0, math.inf), steps=4000):
    """Where the guided probability-flow ODE of `MixtureDenoiser`'s data takes x_T, written out apart from all samplers.

    With x̂ = x/√ᾱ and the noise level σ = √(1/ᾱ − 1), dx̂/dσ = −σ ∇ log p(x̂; σ), here for scores
    ∇ log p = ∇ log p_u + w (∇ log p_c − ∇ log p_u); by Heun's method in log σ.

    noise: `(B, 3)` float64, x_T. Returns `(B, 3)`.
    """
    alphas = noise_schedule(diffusion_config(conditional=True)).double()
    last, first = ((1 / alphas[i] - 1).sqrt().item() for i in (0, -1))
    means, variance = CLASS_MEANS[:2].double(), STD.double() ** 2

    def slope(position, level):
        scores = (means[:, None] - position) / (variance + level**2)  # (2, B, 3)
        logits = -((means[:, None] - position) ** 2 / (variance + level**2)).sum(dim=-1) / 2
        mixture = (logits.softmax(dim=0)[..., None] * scores).sum(dim=0)
        weight = scale if interval[0] < level <= interval[1] else 1.0
        return -level * (mixture + weight * (scores[label] - mixture))

    position = noise / alphas[-1].sqrt()
    levels = torch.logspace(math.log10(first), math.log10(last), steps, dtype=torch.float64).tolist()
    for level, following in pairwise(levels):
        start = slope(position, level)
        end = slope(position + (following - level) * start, following)
        position = position + (following - level) * (start + end) / 2
    return position


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("sampler", "steps", "interval", "tolerance"),
    [
        ("ddim", 1000, None, 0.02),
        ("dpm_solver", 100, None, 0.02),
        ("dpm_solver", 16, None, 0.15),
        ("dpm_solver", 200, (0.3, 3.0), 0.04),
    ],
)
def test_guidance_between_two_gaussians_follows_its_ode(sampler, steps, interval, tolerance, prediction):
    config = diffusion_config(conditional=True, objective=prediction)
    count, scale, label = 64, 3.0, 1
    samples = draw(
        MixtureDenoiser(config, means=CLASS_MEANS),
        config,
        torch.full((count,), label),
        sampler=sampler,
        steps=steps,
        guidance_scale=scale,
        guidance_interval=interval,
    ).flatten(1)
    noise = noise_of_samples(0, range(count)).flatten(1).double()
    expected = guided_trajectory(noise, label, scale, interval or (0.0, math.inf))
    assert (samples - expected).abs().mean() < tolerance * STD.mean()
    unguided = guided_trajectory(noise, label, 1.0)
    elsewhere = guided_trajectory(noise, label, scale, (0.0, math.inf) if interval else (0.3, 3.0))
    for other in (unguided, elsewhere):
        assert (samples - other).abs().mean() > 2 * (samples - expected).abs().mean()


def test_guidance_within_an_interval_moves_the_mean_as_its_closed_form_says():
    # Between levels σ₁ > σ₂ the ODE of N(μ, s²) keeps (x̂ − μ)/√(s² + σ²); μ is that of the scale in force.
    config = diffusion_config(conditional=True)
    denoiser, labels = GaussianDenoiser(config, means=CLASS_MEANS), torch.tensor([0, 1]).repeat(2000)
    low, high, scale = 0.4, 2.0, 3.0
    how = {"sampler": "ddim", "steps": 1000, "guidance_scale": scale, "guidance_interval": (low, high)}
    samples = draw(denoiser, config, labels, **how).flatten(1)
    spread = {level: (STD**2 + level**2).sqrt() for level in (low, high)}
    for label in (0, 1):
        plain = CLASS_MEANS[label]
        guided = CLASS_MEANS[2] + scale * (plain - CLASS_MEANS[2])
        at_low = guided + (plain - guided) * spread[low] / spread[high]
        expected = plain + (at_low - plain) * STD / spread[low]
        of_class = samples[labels == label]
        assert ((of_class.mean(dim=0) - expected).abs() < 4 * STD / math.sqrt(len(of_class)) + 0.02 * STD).all()
        assert ((of_class.std(dim=0) / STD - 1).abs() < 0.1).all()
    assert (expected - plain).abs().max() > 0.2


def test_guidance_is_on_every_channel():
    """Implementations after DiT's guide the first three channels alone."""
    config, shape = diffusion_config(conditional=True), LatentShape((1, 1), 9)
    means = torch.stack([torch.ones(9), -torch.ones(9), torch.zeros(9)])
    config_of_sampling = SamplingConfig(samples=250, batch_size=250, sampler="dpm_solver", steps=20, guidance_scale=3.0)

    class NineChannels(GaussianDenoiser):
        def forward(self, noisy, timesteps, labels):
            parts = [
                GaussianDenoiser(self.config, means=means[:, i : i + 3])(noisy[..., i : i + 3], timesteps, labels)
                for i in (0, 3, 6)
            ]
            return torch.cat(parts, dim=-1)

    denoiser = NineChannels(config, means=means)
    drawn = sample(
        denoiser, config, config_of_sampling, torch.zeros(250, dtype=torch.int64), shape, torch.tensor(FAR), 0, "cpu"
    )
    torch.testing.assert_close(drawn.mean(dim=(0, 1, 2)), torch.full((9,), 3.0), atol=0.3, rtol=0)


# --- presets and what is kept of them ---------------------------------------------------------------------------------


WITHIN = {"guidance_scale": 2.0, "guidance_interval": (0.5, 2.0)}


@pytest.mark.parametrize(
    ("objective", "how"),
    [
        ("epsilon", {"preset": "paper", "guidance_scale": 5.0}),
        ("epsilon", {"preset": "paper"}),
        *(("epsilon", {"preset": "fast", "guidance_scale": scale}) for scale in (2.0, None, 1.0, 0.0)),
        ("epsilon", {"sampler": "ddim", "steps": 7, **WITHIN}),
        ("epsilon", {"sampler": "heun", "steps": 7, **WITHIN}),
        *((objective, {"sampler": "heun", "steps": 7, **WITHIN}) for objective in ("flow_matching", "edm")),
        *((objective, {"sampler": "euler", "steps": 7}) for objective in ("flow_matching", "edm")),
    ],
)
def test_network_evaluations_are_counted_as_they_happen(objective, how):
    config = diffusion_config(conditional=True, objective=objective)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS)
    draw(denoiser, config, torch.tensor([0, 1]), **how)
    rows = sum(len(timesteps) for timesteps, _ in denoiser.calls)
    counted = network_evaluations(config, SamplingConfig(samples=2, batch_size=2, **how))
    assert counted == rows / 2
    if how.get("preset") == "fast":
        assert counted <= 25
    if how == {"preset": "paper", "guidance_scale": 5.0}:
        assert counted == 2000


def test_settings_are_json_and_give_every_samples_seed():
    config = diffusion_config(conditional=True)
    how = SamplingConfig(samples=2, batch_size=2, preset="fast", guidance_scale=2.0)
    ranges = torch.tensor([4.5, 0.5, 2.0])
    settings = sampling_settings(config, how, ranges, seed=11)
    assert json.loads(json.dumps(settings)) == settings
    assert settings["network_evaluations"] == network_evaluations(config, how)
    assert (settings["sampler"], settings["guidance_scale"], settings["clip_range"]) == ("dpm_solver", 2.0, [0.5, 4.5])
    unclipped = how.model_copy(update={"clip_denoised": False})
    assert sampling_settings(config, unclipped, ranges, seed=11)["clip_range"] is None
    large = SamplingConfig(samples=2, batch_size=2, preset="paper", variance="fixed_large")
    assert sampling_settings(config, large, ranges, seed=11)["variance"] == "fixed_large"
    assert sample_seed(11, 5) == (settings["first_seed"] + 5) % 2**32
    generator = torch.Generator().manual_seed((settings["first_seed"] + 5) % 2**32)
    noise = torch.randn(SHAPE.shape, generator=generator)
    assert torch.equal(noise, noise_of_samples(11, [5])[0])


def test_initial_noise_depends_on_seed_and_index_alone():
    shape = LatentShape((4, 4), 8)
    noise = noise_of_samples(7, range(64), shape)
    assert noise.shape == (64, 4, 4, 8)
    assert torch.equal(noise[10:20], noise_of_samples(7, range(10, 20), shape))
    assert len(noise.flatten(1).unique(dim=0)) == 64
    neighbour = noise_of_samples(8, range(64), shape)
    assert len(torch.cat([noise, neighbour]).flatten(1).unique(dim=0)) == 128
    assert abs(noise.mean()) < 4 / math.sqrt(noise.numel())
    assert abs(noise.std() - 1) < 4 / math.sqrt(2 * noise.numel())


@pytest.mark.parametrize(("objective", "sampler"), WAYS)
def test_a_sample_depends_on_its_number_alone(objective, sampler):
    config = diffusion_config(conditional=True, objective=objective)
    denoiser = GaussianDenoiser(config, means=CLASS_MEANS)
    labels, how = torch.tensor([0, 1, 1, 0, 1]), {"sampler": sampler, "steps": 10, "guidance_scale": 2.0}
    whole = draw(denoiser, config, labels, batch_size=5, **how)
    parts = draw(denoiser, config, labels, batch_size=2, **how)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    rest = draw(denoiser, config, labels[3:], first=3, **how)
    torch.testing.assert_close(whole[3:], rest, atol=1e-5, rtol=1e-5)


def test_ddpm_repeats_itself_and_draws_new_noise_for_each_sample():
    config = diffusion_config(timesteps=20)
    denoiser = GaussianDenoiser(config)
    first, again = (draw(denoiser, config, sampler="ddpm", steps=20, samples=2000, batch_size=1000) for _ in range(2))
    assert torch.equal(first, again)
    halves = ((first - MEAN) / STD).view(2, -1)
    assert abs(torch.corrcoef(halves)[0, 1]) < 0.1  # with the same noise in both batches it is near 1
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
    with pytest.raises(ValueError, match=r"clip_range must not be negative, got -1\.0"):
        draw(denoiser, config, steps=5, clip_range=[1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="clip_range must not be negative"):
        draw(denoiser, config, steps=5, clip_range=math.nan)
