"""A functaset of samples: what is stored, and going on after an interruption."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation.samples import LatentSampler, plan_samples
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.errors import StaleFunctasetError
from spatial_functa_pipeline.functasets.format import NO_SOURCE, FunctasetHeader
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.models.paths import noise_schedule
from spatial_functa_pipeline.models.sampling import sample, sampling_settings
from spatial_functa_pipeline.training.seeding import derive_seed

SHAPE = LatentShape((2, 2), 3)
CLASSES = 4
CLIP = torch.tensor([2.5, 0.5, 1.5])
RUNTIME = RuntimeConfig(device="cpu", progress=False)
NORMALISER = Normaliser(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.2, 0.3]), CLIP)


def diffusion(conditional):
    return DiffusionConfig(
        conditional=conditional,
        unet={"channels": 32, "multipliers": (1,), "residual_blocks": 1},
        mlp={"width": 32, "blocks": 1},
        architecture="mlp",
        timesteps=50,
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
    )


def denoiser(conditional):
    torch.manual_seed(0)
    model = build_denoiser(diffusion(conditional), SHAPE, CLASSES)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def plan(sampling, conditional=True, seed=3):
    like = FunctasetHeader("toy", "train", SHAPE, "nearest", 10)
    process = diffusion(conditional)
    return plan_samples(
        denoiser(conditional), NORMALISER, process, sampling, like,
        dataset="toy", fingerprint="of the denoiser", seed=seed, runtime=RUNTIME,
    )  # fmt: skip


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
@pytest.mark.parametrize("conditional", [True, False])
def test_samples_are_raw_latents_with_their_labels_and_settings(tmp_path, sampler, conditional):
    sampling = SamplingConfig(
        samples=10, batch_size=4, sampler=sampler, steps=6, guidance_scale=2.0 if conditional else None
    )
    write(tmp_path / "samples.zarr", plan(sampling, conditional))
    samples = Functaset.open(tmp_path / "samples.zarr")
    labels = torch.arange(10) % CLASSES if conditional else None
    seed, config = derive_seed(3, "samples"), diffusion(conditional)
    expected = sample(denoiser(conditional), config, sampling, labels, SHAPE, CLIP, seed, "cpu")
    torch.testing.assert_close(samples.batch(range(10)), NORMALISER.inverse(expected), atol=1e-5, rtol=1e-5)
    assert samples.labels.tolist() == (labels.tolist() if conditional else [-1] * 10)
    assert (samples.source_index == NO_SOURCE).all()
    settings = sampling_settings(config, sampling, CLIP, seed)
    assert samples.header.settings == settings
    assert settings["network_evaluations"] == (12 if conditional else 6)
    assert settings["classes"] == ("in turn" if conditional else None)


class Knowing(nn.Module):
    """A denoiser that knows what is to be drawn: the ε that leads from any noisy latent to `clean`, `(*grid, c)`."""

    num_classes = None

    def __init__(self, clean):
        super().__init__()
        self.clean, self.alpha_bar = clean, noise_schedule(diffusion(False))

    def forward(self, noisy, timesteps, labels):
        alpha_bar = self.alpha_bar[timesteps.long()].view(-1, 1, 1, 1)
        return (noisy - alpha_bar.sqrt() * self.clean) / (1 - alpha_bar).sqrt()


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("rotation", ["within_cells", "whole"])
def test_samples_of_a_denoiser_of_rotated_latents_are_raw_latents(make_functaset, rotation, clip):
    """A latent of the training set is within the clip bounds, which are those of the rotated ones."""
    latents = np.random.default_rng(0).normal(1, 2, size=(40, 2, 2, 3)).astype(np.float32)
    normaliser = Normaliser.from_statistics(
        compute_statistics(make_functaset(latents), rotation=rotation), "vector", 2.0
    )
    raw = torch.from_numpy(latents[7])
    sampling = SamplingConfig(samples=2, batch_size=2, sampler="ddim", steps=10, clip_denoised=clip)
    draw = LatentSampler(Knowing(normaliser(raw[None])[0]), normaliser, diffusion(False), sampling, SHAPE, seed=0)
    torch.testing.assert_close(torch.from_numpy(draw(0, 2).latents), raw.expand(2, 2, 2, 3), atol=1e-2, rtol=0)


def test_interrupted_sampling_goes_on_with_the_next_batch(tmp_path):
    sampling = SamplingConfig(samples=10, batch_size=4, sampler="ddpm", steps=6, guidance_scale=2.0)
    whole, drawn = plan(sampling), []
    write(tmp_path / "whole.zarr", whole)

    def interrupted(start, stop):
        if drawn:
            raise KeyboardInterrupt
        drawn.append((start, stop))
        return whole.encode(start, stop)

    def resumed(start, stop):
        drawn.append((start, stop))
        return whole.encode(start, stop)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "parts.zarr", replace(whole, encode=interrupted))
    write(tmp_path / "parts.zarr", replace(whole, encode=resumed))
    assert drawn == [(0, 4), (4, 8), (8, 10)]
    latents = [Functaset.open(tmp_path / name).rows(0, 10) for name in ("whole.zarr", "parts.zarr")]
    np.testing.assert_array_equal(*latents)


def test_another_guidance_scale_makes_other_samples_only_where_they_may_be_replaced(tmp_path):
    path, latents = tmp_path / "samples.zarr", {}
    first, second = (
        plan(SamplingConfig(samples=4, batch_size=4, sampler="ddim", steps=6, guidance_scale=scale))
        for scale in (1.0, 3.0)
    )
    write(path, first)
    latents[1.0] = Functaset.open(path).rows(0, 4)
    with pytest.raises(StaleFunctasetError, match=r"'guidance_scale': 1\.0"):
        write(path, second)
    write(path, second, replace=True)
    latents[3.0] = Functaset.open(path).rows(0, 4)
    assert Functaset.open(path).header.settings["guidance_scale"] == 3.0
    assert np.abs(latents[3.0] - latents[1.0]).max() > 1e-3
