"""Matrix products in bfloat16."""

import logging

import pytest
import torch
import torch.nn.functional as F

from spatial_functa_pipeline import compute
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.classifiers import build_classifier

CPU = torch.device("cpu")


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    config = ClassificationConfig(
        transformer={"width": 32, "ffw_width": 64, "blocks": 2, "heads": 2},
        mlp={"width": 32, "blocks": 1},
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
    )
    return build_classifier(config, LatentShape((4, 4), 8), 10).eval()


def test_products_are_rounded_and_weights_and_gradients_are_not(classifier):
    latents = torch.randn(4, 4, 4, 8)
    exact = classifier(latents)
    with compute.bf16_products("bf16", CPU):
        rounded = classifier(latents)
    rounded.float().square().mean().backward()
    error = (rounded.float() - exact).abs().max() / exact.abs().max()
    assert 1e-5 < error < 0.05
    assert {parameter.grad.dtype for parameter in classifier.parameters()} == {torch.float32}


def test_on_a_cpu_group_normalisation_and_attention_stay_in_float32():
    """They would take it several times as long, and a UNet would be no faster than in float32."""
    torch.manual_seed(0)
    images, weights = torch.randn(2, 8, 4, 4), torch.randn(8)
    tokens = torch.randn(3, 2, 2, 5, 8).unbind()
    with compute.bf16_products("bf16", CPU):
        normalised = F.group_norm(images.bfloat16(), 4, weights, eps=1e-5)
        mixed = F.scaled_dot_product_attention(*(one.bfloat16() for one in tokens), scale=0.5)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(normalised, F.group_norm(images.bfloat16().float(), 4, weights, eps=1e-5))
    exact = F.scaled_dot_product_attention(*(one.bfloat16().float() for one in tokens), scale=0.5)
    assert torch.equal(mixed, exact)
    assert F.group_norm(images.bfloat16(), 4).dtype == torch.bfloat16


def test_float32_changes_nothing(classifier):
    latents = torch.randn(4, 4, 4, 8)
    with compute.bf16_products("float32", CPU):
        assert torch.equal(classifier(latents), classifier(latents))
        assert classifier(latents).dtype == torch.float32


@pytest.mark.parametrize(("capable", "expected"), [(True, "bf16"), (False, "float32")])
def test_bf16_is_float32_where_it_would_be_emulated(monkeypatch, caplog, capable, expected):
    monkeypatch.setattr(compute, "has_bf16_products", lambda device: capable)
    with caplog.at_level(logging.INFO):
        assert compute.available_precision("bf16", CPU, "classifier") == expected
        assert compute.available_precision("float32", CPU, "classifier") == "float32"
        assert compute.available_precision("tf32", CPU, "denoiser") == "float32"
        assert compute.available_precision("tf32", torch.device("cuda"), "denoiser") == "tf32"
    messages = [] if capable else ["classifier: this cpu has no bfloat16 products; precision bf16 means float32 here"]
    messages.append("denoiser: TensorFloat-32 is CUDA's; precision tf32 means float32 here")
    assert [record.message for record in caplog.records] == messages


def test_a_cpu_says_whether_it_has_bf16_products():
    assert compute.has_bf16_products(CPU) in (True, False)
