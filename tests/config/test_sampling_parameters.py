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


def load(env, sampling=None):
    changes = {"evaluation": {"sampling": sampling}} if sampling else None
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
    parameters = load("sample", {"preset": "paper"})
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
        ({"guidance_interval": (0.3, 3.0)}, "guidance_scale is null: set the scale, or the interval to null"),
        ({"guidance_scale": 2.0, "guidance_interval": (3.0, 0.3)}, "low < high"),
        ({"guidance_scale": 2.0, "guidance_interval": (-1.0, 0.3)}, "greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_is_an_error(keys, message):
    with pytest.raises(ValidationError, match=message):
        SamplingConfig(**SIZES, **keys)
