"""Tensors and the configuration that is needed to use them; models from and to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.block import without_neutral
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.fields.encoder import CodeSpec, Encoder
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.files import replace_durably
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.metrics.features import FeatureNetwork
from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import Denoiser, build_denoiser
from spatial_functa_pipeline.models.linear_encoder import LinearEncoder

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
    return Weights(field.state_dict(), {"field": config.model_dump(mode="json"), "parameters": _count(field)})


def unpack_field(weights: Weights, device: torch.device) -> SpatialField:
    """The field, in evaluation mode."""
    field = SpatialField(FieldConfig.model_validate(weights.config["field"]).spec)
    field.load_state_dict(weights.tensors)
    return field.to(device).eval()


def pack_linear_encoder(encoder: LinearEncoder) -> Weights:
    """A linear code and its shapes."""
    return Weights(encoder.state_dict(), {"linear_code": _shapes(encoder)})


def pack_autoencoder(autoencoder: Autoencoder, config: AutoencoderConfig) -> Weights:
    """An autoencoder, its shapes, and of its configuration all that matters."""
    settings = {
        "autoencoder": without_neutral(config.model_dump(mode="json")),
        "shapes": _shapes(autoencoder),
        "parameters": _count(autoencoder),
    }
    return Weights(autoencoder.state_dict(), settings)


def unpack_encoder(weights: Weights, device: torch.device) -> Encoder:
    """The encoder that was packed, of whatever kind, in evaluation mode."""
    encoder: Encoder
    match weights.config:
        case {"linear_code": shapes}:
            encoder = LinearEncoder(_spec(shapes))
        case {"autoencoder": config, "shapes": shapes}:
            encoder = Autoencoder(_spec(shapes), AutoencoderConfig.model_validate(config))
        case _:
            return unpack_field(weights, device)
    encoder.load_state_dict(weights.tensors)
    return encoder.to(device).eval()


def _shapes(encoder: Encoder) -> dict[str, Any]:
    spec = encoder.spec
    return {
        "latent_shape": str(spec.latent_shape),
        "resolution": list(spec.resolution),
        "channels": spec.channels,
    }


def _spec(shapes: dict[str, Any]) -> CodeSpec:
    return CodeSpec(LatentShape.parse(shapes["latent_shape"]), tuple(shapes["resolution"]), shapes["channels"])


def pack_model(
    model: nn.Module,
    normaliser: Normaliser,
    config: ClassificationConfig | DiffusionConfig,
    shape: LatentShape,
    classes: int,
    guide: Denoiser | None = None,
) -> Weights:
    """A classifier or denoiser with the normalisation it was trained with: neither is of use without the other.

    `guide` is that of the denoiser, see `guidance`, if there is one.

    Of its configuration all that matters: what changes no result must not change the digest of the same numbers.
    """
    parts = nn.ModuleDict({"model": model, "normaliser": normaliser, **({} if guide is None else {"guide": guide})})
    settings = {
        "model": without_neutral(config.model_dump(mode="json")),
        "latent_shape": str(shape),
        "num_classes": classes,
        "parameters": _count(model),
    }
    return Weights(parts.state_dict(), settings)


def unpack_classifier(weights: Weights, device: torch.device) -> tuple[nn.Module, Normaliser, ClassificationConfig]:
    """Classifier and normaliser, in evaluation mode, and how the classifier was trained."""
    config = ClassificationConfig.model_validate(weights.config["model"])
    shape = LatentShape.parse(weights.config["latent_shape"])
    model = build_classifier(config, shape, weights.config["num_classes"])
    return _load(model, weights, device), _unpack_normaliser(weights, device), config


def unpack_denoiser(weights: Weights, device: torch.device) -> tuple[Denoiser, Normaliser, DiffusionConfig]:
    """Denoiser and normaliser, in evaluation mode, and the process the denoiser was trained for."""
    denoiser, config = _build_denoiser(weights)
    return _load(denoiser, weights, device), _unpack_normaliser(weights, device), config


def unpack_guide(weights: Weights, device: torch.device) -> Denoiser | None:
    """The denoiser's guide, in evaluation mode; None if none was kept."""
    if not any(name.startswith("guide.") for name in weights.tensors):
        return None
    return _load(_build_denoiser(weights)[0], weights, device, "guide.")


def _build_denoiser(weights: Weights) -> tuple[Denoiser, DiffusionConfig]:
    config = DiffusionConfig.model_validate(weights.config["model"])
    shape = LatentShape.parse(weights.config["latent_shape"])
    return build_denoiser(config, shape, weights.config["num_classes"]), config


def _unpack_normaliser(weights: Weights, device: torch.device) -> Normaliser:
    return Normaliser(**_part(weights, "normaliser.")).to(device).eval()


def _load(model: Model, weights: Weights, device: torch.device, prefix: str = "model.") -> Model:
    model.load_state_dict(_part(weights, prefix))
    return model.to(device).eval()


def _part(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.tensors.items() if name.startswith(prefix)}


def pack_feature_network(network: FeatureNetwork) -> Weights:
    """The small classifier behind `frechet_distance_convnet_…`."""
    settings = {"channels": network.channels, "num_classes": network.num_classes, "width": network.width}
    return Weights(network.state_dict(), {**settings, "parameters": _count(network)})


def unpack_feature_network(weights: Weights, device: torch.device) -> FeatureNetwork:
    """The network, in evaluation mode."""
    settings = {name: weights.config[name] for name in ("channels", "num_classes", "width") if name in weights.config}
    network = FeatureNetwork(**settings)  # files of older versions name no width: they have the default
    network.load_state_dict(weights.tensors)
    return network.to(device).eval()


def write_weights(path: str | Path, weights: Weights) -> None:
    """One safetensors file, which is there whole or not at all; the configuration is JSON in its header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
    with replace_durably(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={"config": json.dumps(weights.config)})


def read_weights(path: str | Path) -> Weights:
    """What `write_weights` wrote. Raises FileNotFoundError, and ValueError for a file that is not complete."""
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            return Weights({name: file.get_tensor(name) for name in file.keys()}, config)  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error


def load_field(path: str | Path, device: torch.device | str = "cpu") -> SpatialField:
    """A trained field from its safetensors file, in evaluation mode. Raises as `read_weights` does."""
    return unpack_field(read_weights(path), torch.device(device))


def _count(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())
