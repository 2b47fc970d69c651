"""Weights on disk."""

import json
from typing import get_args

import pytest
import torch
from kedro.io import DatasetError
from torch import nn

from spatial_functa_pipeline.config.classification import (
    ClassificationConfig,
    ClassifierArchitecture,
    ConvNeXtConfig,
    TransformerConfig,
)
from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, UNetConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.datasets.weights import CheckpointDataset, WeightsDataset
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.rotation import random_orthogonal
from spatial_functa_pipeline.metrics.features import FEATURE_WIDTHS, FeatureNetwork
from spatial_functa_pipeline.models import weights as pack
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.models.weights import Weights
from spatial_functa_pipeline.training.checkpoint import Checkpoint

CPU = torch.device("cpu")
TRAINING = TrainingConfig(steps=1, batch_size=1, learning_rate=1)
SHAPE = LatentShape((4, 4), 6)


@pytest.fixture
def stored(tmp_path):
    """Through the file and back."""

    def through(weights):
        dataset = WeightsDataset(filepath=str(tmp_path / "sub" / "model.safetensors"))
        dataset.save(weights)
        return dataset.load()

    return through


def test_tensors_and_configuration_come_back(stored):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3, dtype=torch.int64)}
    loaded = stored(Weights(tensors, {"x": [1, None, "é"]}))
    assert loaded.config == {"x": [1, None, "é"]}
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype


def test_the_preview_reads_the_header(tmp_path):
    dataset = WeightsDataset(filepath=str(tmp_path / "m.safetensors"))
    dataset.save(Weights({"a": torch.zeros(3, 4), "b": torch.zeros(())}, {"x": 1}))
    assert json.loads(dataset.preview()) == {"parameters": 13, "tensors": 2, "config": {"x": 1}}


def test_a_truncated_file_is_named(tmp_path):
    dataset = WeightsDataset(filepath=str(tmp_path / "m.safetensors"))
    dataset.save(Weights({"a": torch.zeros(100)}))
    file = tmp_path / "m.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DatasetError, match=r"m\.safetensors is not a complete safetensors file"):
        dataset.load()


def test_a_field_is_loaded_from_its_file_alone(tmp_path):
    config = FieldConfig(
        latent_shape="2x2x3", interpolation="nearest", resolution=(8, 8), channels=2, width=5, depth=3, kernel_size=1
    )
    field = SpatialField(config.spec)
    pack.write_weights(str(tmp_path / "models" / "field.safetensors"), pack.pack_field(field, config))
    again = pack.load_field(tmp_path / "models" / "field.safetensors")
    images = torch.rand(1, 8, 8, 2)
    assert not again.training
    assert torch.equal(again.encode(images), field.encode(images))
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["field.safetensors"]
    with pytest.raises(FileNotFoundError):
        pack.load_field(tmp_path / "nowhere.safetensors")


def test_a_checkpoint_dataset_gives_the_handle_and_cannot_be_saved(tmp_path):
    dataset = CheckpointDataset(filepath=str(tmp_path / "c.pt"))
    assert dataset.load() == Checkpoint(tmp_path / "c.pt")
    with pytest.raises(DatasetError):
        dataset.save(1)


def test_a_field_is_rebuilt(stored):
    config = FieldConfig(
        latent_shape="2x2x3", interpolation="linear", resolution=(8, 8), channels=2, width=5, depth=3, kernel_size=3
    )
    field = SpatialField(config.spec)
    again = pack.unpack_field(stored(pack.pack_field(field, config)), CPU)
    images = torch.rand(1, 8, 8, 2)
    assert torch.equal(again.encode(images), field.encode(images))


@pytest.mark.parametrize("architecture", get_args(ClassifierArchitecture))
def test_a_classifier_is_rebuilt_with_its_normaliser(stored, architecture):
    config = ClassificationConfig(
        architecture=architecture,
        transformer=TransformerConfig(width=8, ffw_width=8, blocks=1, heads=2),
        mlp=MLPConfig(width=8, blocks=1),
        convnext=ConvNeXtConfig(width=8, blocks=1, downsampled_blocks=1),
        drop_path=0.3,
        training=TRAINING,
    )
    model = build_classifier(config, SHAPE, 3).eval()
    weights = stored(pack.pack_model(model, Normaliser.by_scale(0.3), config, SHAPE, 3))
    again, normaliser, known = pack.unpack_classifier(weights, CPU)
    assert known == config
    latents = torch.randn(2, 4, 4, 6)
    assert torch.equal(again(normaliser(latents)), model(latents / 0.3))


def test_a_guide_is_kept_with_its_denoiser(stored):
    config = DiffusionConfig(
        architecture="mlp",
        unet=UNetConfig(channels=32, multipliers=(1,), residual_blocks=1),
        mlp=DenoiserMLPConfig(width=8, blocks=1),
        autoguidance=0.25,
        training=TRAINING,
    )
    model, guide = (build_denoiser(config, SHAPE, 3).eval() for _ in range(2))
    for parameter in guide.parameters():
        nn.init.normal_(parameter, std=0.1)
    packed = pack.pack_model(model, Normaliser.by_scale(0.3), config, SHAPE, 3, guide)
    alone = pack.pack_model(model, Normaliser.by_scale(0.3), config, SHAPE, 3)
    assert packed.config == alone.config
    assert packed.digest != alone.digest
    weights = stored(packed)
    inputs = torch.randn(2, 4, 4, 6), torch.tensor([0.0, 9.5]), torch.tensor([0, 3])
    assert torch.equal(pack.unpack_denoiser(weights, CPU)[0](*inputs), model(*inputs))
    assert torch.equal(pack.unpack_guide(weights, CPU)(*inputs), guide(*inputs))
    assert pack.unpack_guide(alone, CPU) is None


@pytest.mark.parametrize("rotation", [None, random_orthogonal(6, 0), random_orthogonal(96, 0)])
@pytest.mark.parametrize("conditional", [True, False])
def test_a_denoiser_is_rebuilt_with_its_normaliser(stored, conditional, rotation):
    config = DiffusionConfig(
        conditional=conditional,
        unet=UNetConfig(channels=32, multipliers=(1,), residual_blocks=1, attention_resolutions=(), head_dim=32),
        mlp=DenoiserMLPConfig(width=8, blocks=1),
        training=TRAINING,
    )
    model = build_denoiser(config, SHAPE, 3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    normaliser = Normaliser(torch.randn(6), torch.rand(6) + 1, torch.tensor(4.0), rotation)
    again, same, process = pack.unpack_denoiser(stored(pack.pack_model(model, normaliser, config, SHAPE, 3)), CPU)
    inputs = torch.randn(2, 4, 4, 6), torch.tensor([0, 9]), torch.tensor([0, 3]) if conditional else None
    assert torch.equal(again(*inputs), model(*inputs))
    assert process == config
    assert same.clip_range == 4
    torch.testing.assert_close(same.inverse(same(inputs[0])), inputs[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(same(inputs[0]), normaliser(inputs[0]))


@pytest.mark.parametrize("width", FEATURE_WIDTHS.values())
def test_a_feature_network_is_rebuilt(stored, width):
    network = FeatureNetwork(1, 3, width).eval()
    again = pack.unpack_feature_network(stored(pack.pack_feature_network(network)), CPU)
    images = torch.rand(2, 16, 16, 1)
    assert torch.equal(again.features(images), network.features(images))


def test_a_feature_network_of_an_older_version_has_the_default_width():
    packed = pack.pack_feature_network(FeatureNetwork(1, 3))
    del packed.config["width"]
    assert pack.unpack_feature_network(packed, CPU).width == FEATURE_WIDTHS["convnet"]
