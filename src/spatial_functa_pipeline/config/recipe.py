"""`recipe`: what a run takes for settings that the paper leaves open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spatial_functa_pipeline.config.diffusion import OF_TIMESTEPS
from spatial_functa_pipeline.config.places import flatten, may_name
from spatial_functa_pipeline.config.tree import PipelineParameters

_OF_THE_DATA = (
    *("recipe", "data", "seed"),
    *(f"meta_learning.field.{key}" for key in ("latent_shape", "interpolation", "resolution", "channels")),
)


def left_open(parameters: PipelineParameters, printed: Iterable[str]) -> dict[str, Any]:
    """The settings that shape a result and whose values are not printed in the paper, by dotted key.

    Args:
        parameters: of the run.
        printed: keys and blocks that are, from `printed_keys`.
    """
    known = (*_OF_THE_DATA, *printed, *without_effect(parameters))
    flat = flatten(parameters.model_dump(mode="json"))
    return {key: value for key, value in flat if may_name(key) and not inside(key, known)}


def inside(key: str, blocks: Iterable[str]) -> bool:
    """Whether a key is one of the blocks, or in one."""
    return any(f"{key}.".startswith(f"{block}.") for block in blocks)


def without_effect(parameters: PipelineParameters) -> frozenset[str]:
    """Keys and blocks that mean nothing beside the values of others."""
    field = parameters.meta_learning.field
    shape, classification, diffusion = parameters.latent_shape, parameters.classification, parameters.diffusion
    sampling, frechet, functaset = parameters.evaluation.sampling, parameters.evaluation.frechet, parameters.functaset
    classifier, denoiser = classification.architecture_on(shape), diffusion.architecture_on(shape)
    trainings = {
        "meta_learning.training": parameters.meta_learning.training,
        "classification.training": classification.training,
        "diffusion.training": diffusion.training,
    }
    idle = {
        "encoder": True,  # the paper's is the field
        "meta_learning": parameters.encoder != "field",
        "autoencoder": parameters.encoder != "autoencoder",
        "meta_learning.field.kernel_size": shape.cells == 1,
        "meta_learning.field.kernel_init": field.kernel_size == 1 or field.initialisation == "data",
        "meta_learning.field.inner_rate_init": field.initialisation == "data",
        "meta_learning.learning_rate_factors.first_step": field.first_step == "tied",
        "meta_learning.learning_rate_factors.linear": field.initialisation == "random",
        "meta_learning.spectral_penalty.threshold": parameters.meta_learning.spectral_penalty.weight == 0,
        "functaset.augmentation": functaset.augmented_copies == 0,
        "functaset.augmentation.randaugment_magnitude": functaset.augmentation.randaugment_operations == 0,
        "functaset.mirror_held_out": not classification.test_time_flips,
        "normalization_stats": parameters.normalization_stats.rotation is None,  # it is a control
        "classification.preset": True,  # what its rows set says what it means
        "classification": parameters.data.num_classes == 1,  # there is nothing to tell apart
        "classification.mlp": classifier != "mlp",
        "classification.convnext": classifier != "convnext",
        "classification.transformer": classifier != "transformer",
        "classification.transformer.vector_tokens": shape.cells > 1,
        "diffusion.dit": denoiser != "dit",
        "diffusion.dit.vector_tokens": shape.cells > 1,
        "diffusion.mlp": denoiser != "mlp",
        "diffusion.unet": denoiser != "unet",
        "diffusion.dummy_label_share": not diffusion.conditional,
        "diffusion.timestep_reweighting": diffusion.timestep_ratio == 1 or not diffusion.has_timesteps,
        **{f"diffusion.{key}": not diffusion.has_timesteps for key in OF_TIMESTEPS if key != "timestep_reweighting"},
        "diffusion.noise_level": diffusion.has_timesteps,
        "evaluation.sampling.preset": True,  # sampler and steps say what it means
        "evaluation.sampling.variance": sampling.sampler != "ddpm",
        "evaluation.sampling.time_shift": diffusion.objective != "flow_matching",
        "evaluation.sampling.guidance": sampling.guidance_scale is None,
        "evaluation.sampling.guidance_interval": sampling.guidance_scale is None,
        "evaluation.frechet.feature_network": frechet.features == "inception",
        "evaluation.frechet.inception_weights": True,  # where a file is
        **{f"{name}.weight_decay_on": training.weight_decay == 0 for name, training in trainings.items()},
        **{f"{name}.ema_ramp": training.ema_decay is None for name, training in trainings.items()},
    }
    return frozenset(key for key, without in idle.items() if without)
