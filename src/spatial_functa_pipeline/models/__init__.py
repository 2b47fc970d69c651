"""Encoders beside the field; classifiers and denoisers of latents: how they are built, sampled from, kept as `Weights`."""

from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import Denoiser, build_denoiser
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss
from spatial_functa_pipeline.models.guidance import Guidance, GuidedDenoiser
from spatial_functa_pipeline.models.linear_encoder import LinearEncoder
from spatial_functa_pipeline.models.sample_seeds import sample_seed
from spatial_functa_pipeline.models.sampling import sample, sampling_settings
from spatial_functa_pipeline.models.weights import (
    Weights,
    load_field,
    pack_autoencoder,
    pack_feature_network,
    pack_field,
    pack_linear_encoder,
    pack_model,
    read_weights,
    unpack_classifier,
    unpack_denoiser,
    unpack_encoder,
    unpack_feature_network,
    unpack_field,
    unpack_guide,
    write_weights,
)

__all__ = [
    "Autoencoder",
    "Denoiser",
    "Guidance",
    "GuidedDenoiser",
    "LinearEncoder",
    "Process",
    "Weights",
    "build_classifier",
    "build_denoiser",
    "diffusion_loss",
    "load_field",
    "pack_autoencoder",
    "pack_feature_network",
    "pack_field",
    "pack_linear_encoder",
    "pack_model",
    "read_weights",
    "sample",
    "sample_seed",
    "sampling_settings",
    "unpack_classifier",
    "unpack_denoiser",
    "unpack_encoder",
    "unpack_feature_network",
    "unpack_field",
    "unpack_guide",
    "write_weights",
]
