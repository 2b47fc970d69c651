"""What the parameters of sampling mean: presets, keys given beside them, and what does not fit together."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from spatial_functa_pipeline.config.evaluation import SAMPLING_PRESETS, SamplingConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.models.sampling import network_evaluations
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"
SIZES = {"samples": 10, "batch_size": 10}
PAPER = {"cifar10", "imagenet256", "celebahq64"}
FAST = {"sample", "fashion_mnist", "image_folder"}


def load(env, sampling=None, diffusion=None):
    changes = {"evaluation": {"sampling": sampling or {}}, "diffusion": diffusion or {}}
    loader = CONFIG_LOADER_CLASS(str(CONF), env=env, runtime_params=changes, **CONFIG_LOADER_ARGS)
    return PipelineParameters.model_validate(loader["parameters"])


@pytest.mark.parametrize("env", sorted(PAPER | FAST))
def test_an_environment_samples_as_its_preset_says(env):
    parameters = load(env)
    sampling = parameters.evaluation.sampling
    expected = ("ddpm", 1000) if env in PAPER else ("dpm_solver", 12)
    assert (sampling.sampler, sampling.steps) == expected


@pytest.mark.parametrize("env", sorted(PAPER | FAST))
def test_fast_takes_at_most_25_network_evaluations_everywhere(env):
    parameters = load(env, {"preset": "fast"})
    sampling, conditional = parameters.evaluation.sampling, parameters.diffusion.conditional
    assert sampling.sampler == "dpm_solver"
    assert network_evaluations(parameters.diffusion, sampling) == (24 if conditional else 12)


def test_one_parameter_chooses_the_papers_sampling():
    parameters = load("sample", {"preset": "paper", "guidance_scale": 2.0}, {"objective": "epsilon"})
    sampling = parameters.evaluation.sampling
    assert (sampling.sampler, sampling.steps, sampling.guidance_scale) == ("ddpm", 1000, 2.0)
    assert network_evaluations(parameters.diffusion, sampling) == 2000


@pytest.mark.parametrize("preset", SAMPLING_PRESETS)
def test_what_is_given_beside_a_preset_wins(preset):
    assert SamplingConfig(**SIZES, preset=preset, steps=7).steps == 7
    assert SamplingConfig(**SIZES, preset=preset, steps=7).sampler == SAMPLING_PRESETS[preset]["sampler"]
    assert SamplingConfig(**SIZES, preset=preset, sampler="ddim").sampler == "ddim"
    filled = SamplingConfig(**SIZES, preset=preset, guidance_scale=2.0)
    assert SamplingConfig.model_validate(filled.model_dump(mode="json")) == filled


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"preset": "slow"}, "'paper' or 'fast'"),
        ({"preset": "fast", "variance": "fixed_large"}, "sampler dpm_solver adds no noise"),
        ({"guidance": "autoguidance"}, "guidance is autoguidance, but guidance_scale is null"),
        ({"guidance_interval": (0.3, 3.0)}, "guidance_scale is null: set the scale, or the interval to null"),
        ({"guidance_scale": 2.0, "guidance_interval": (3.0, 0.3)}, "low < high"),
        ({"guidance_scale": 2.0, "guidance_interval": (-1.0, 0.3)}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_is_an_error(keys, message):
    with pytest.raises(ValidationError, match=message):
        SamplingConfig(**SIZES, **keys)


@pytest.mark.parametrize(
    ("diffusion", "sampling", "message"),
    [
        (
            {"objective": "flow_matching"},
            {"sampler": "ddim"},
            "is ddim, but .* is flow_matching: choose euler, heun or dpm",
        ),
        ({"objective": "edm"}, {"preset": "paper"}, "sampler is ddpm .preset paper., but diffusion.objective is edm"),
        (
            {"objective": "epsilon"},
            {"sampler": "euler"},
            "is euler, but .* is epsilon: choose ddpm, ddim, heun or dpm_solver",
        ),
        ({"objective": "edm"}, {"time_shift": 3.0}, "time_shift is 3.0, but diffusion.objective is edm"),
        ({}, {"guidance": "autoguidance"}, "guidance is autoguidance, but diffusion.autoguidance is null"),
    ],
)
def test_what_does_not_fit_the_denoiser_is_an_error(diffusion, sampling, message):
    with pytest.raises(ValidationError, match=message):
        load("sample", sampling, diffusion)


@pytest.mark.parametrize("conditional", [True, False])
def test_autoguidance_needs_no_classes(conditional):
    diffusion = {"autoguidance": 0.25, "conditional": conditional, "dummy_label_share": 0.0}
    sampling = {"guidance": "autoguidance", "guidance_scale": 3.0, "sampler": "dpm_solver", "steps": 12}
    parameters = load("sample", sampling, diffusion)
    assert parameters.evaluation.sampling.unguided.guidance_scale == 3.0
    assert network_evaluations(parameters.diffusion, parameters.evaluation.sampling) == 24


@pytest.mark.parametrize("objective", ["flow_matching", "edm"])
@pytest.mark.parametrize(("sampler", "expected"), [("euler", 20), ("dpm_solver", 20), ("heun", 39)])
def test_heun_takes_two_network_evaluations_a_step_but_the_last(objective, sampler, expected):
    parameters = load("sample", {"sampler": sampler, "steps": 20, "guidance_scale": None}, {"objective": objective})
    assert network_evaluations(parameters.diffusion, parameters.evaluation.sampling) == expected
