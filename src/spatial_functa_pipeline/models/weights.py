"""Tensors and the configuration that is needed to use them; models from and to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.metrics.features import FeatureNetwork
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import Denoiser, build_denoiser

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Weights:
    """Named tensors, and the configuration that is needed to use them (anything that JSON can hold)."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of names, values and configuration, shortened to 16 hexadecimal digits."""
        return short_digest(self._content())

    def _content(self) -> Iterator[bytes]:
        yield json.dumps(self.config, sort_keys=True).encode()
        for name, tensor in sorted(self.tensors.items()):
            yield name.encode()
            yield tensor.detach().cpu().contiguous().numpy().tobytes()


def pack_field(field: SpatialField, config: FieldConfig) -> Weights:
    """A field and its configuration."""
    return Weights(field.state_dict(), {"field": config.model_dump(mode="json")})


def unpack_field(weights: Weights, device: torch.device) -> SpatialField:
    """The field, in evaluation mode."""
    field = SpatialField(FieldConfig.model_validate(weights.config["field"]).spec)
    field.load_state_dict(weights.tensors)
    return field.to(device).eval()


def pack_model(
    model: nn.Module,
    normaliser: Normaliser,
    config: ClassificationConfig | DiffusionConfig,
    shape: LatentShape,
    classes: int,
) -> Weights:
    """A classifier or denoiser with the normalisation it was trained with: neither is of use without the other."""
    both = nn.ModuleDict({"model": model, "normaliser": normaliser})
    settings = {"model": config.model_dump(mode="json"), "latent_shape": str(shape), "num_classes": classes}
    return Weights(both.state_dict(), settings)


def unpack_classifier(weights: Weights, device: torch.device) -> tuple[nn.Module, Normaliser]:
    """Classifier and normaliser, in evaluation mode."""
    config = ClassificationConfig.model_validate(weights.config["model"])
    shape = LatentShape.parse(weights.config["latent_shape"])
    return _load(build_classifier(config, shape, weights.config["num_classes"]), weights, device)


def unpack_denoiser(weights: Weights, device: torch.device) -> tuple[Denoiser, Normaliser, DiffusionConfig]:
    """Denoiser and normaliser, in evaluation mode, and the process the denoiser was trained for."""
    config = DiffusionConfig.model_validate(weights.config["model"])
    shape = LatentShape.parse(weights.config["latent_shape"])
    return *_load(build_denoiser(config, shape, weights.config["num_classes"]), weights, device), config


def _load(model: Model, weights: Weights, device: torch.device) -> tuple[Model, Normaliser]:
    prefix = "normaliser."
    normaliser = Normaliser(
        **{name.removeprefix(prefix): value for name, value in weights.tensors.items() if name.startswith(prefix)}
    )
    both = nn.ModuleDict({"model": model, "normaliser": normaliser})
    both.load_state_dict(weights.tensors)
    both.to(device).eval()
    return model, normaliser


def pack_feature_network(network: FeatureNetwork, classes: int) -> Weights:
    """The small classifier behind `frechet_distance_convnet`."""
    return Weights(network.state_dict(), {"channels": network.channels, "num_classes": classes})


def unpack_feature_network(weights: Weights, device: torch.device) -> FeatureNetwork:
    """The network, in evaluation mode."""
    network = FeatureNetwork(**weights.config)
    network.load_state_dict(weights.tensors)
    return network.to(device).eval()
