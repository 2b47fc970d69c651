from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spatial_functa_pipeline.config.classification import ClassificationConfig, ClassifierArchitecture
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import to_cells
from spatial_functa_pipeline.models.classifiers import (
    ConvNeXtBlock,
    LatentConvNeXt,
    LatentTransformer,
    ResidualMLPClassifier,
    build_classifier,
)
from spatial_functa_pipeline.models.drop_path import DropPath
from spatial_functa_pipeline.models.transformer import TransformerBlock

SMALL = {"width": 32, "ffw_width": 64, "blocks": 2, "heads": 4}


def classifier_config(transformer=SMALL, convnext=None, **options):
    if options.get("architecture") == "convnext":
        convnext = {"width": 32, "blocks": 2, **(convnext or {})}
    return ClassificationConfig(
        transformer=transformer,
        mlp={"width": 32, "blocks": 2},
        convnext=convnext,
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
        **options,
    )


def parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_imagenet_preset_has_the_papers_64_million_parameters():
    config = classifier_config({"width": 768, "ffw_width": 1536, "blocks": 18, "heads": 16, "head_dim": 24})
    with torch.device("meta"):
        model = build_classifier(config, LatentShape.parse("16x16x128"), 1000)
        logits = model(torch.empty(2, 16, 16, 128))
    assert logits.shape == (2, 1000)
    assert 64e6 <= parameter_count(model) <= 65e6


@pytest.mark.parametrize(("width", "blocks", "shape"), [(128, 12, "8x8x16"), (384, 12, "4x4x64"), (384, 16, "4x4x64")])
def test_cifar10_presets_of_table_5_build_and_run(width, blocks, shape):
    latent_shape = LatentShape.parse(shape)
    config = classifier_config({"width": width, "ffw_width": 2 * width, "blocks": blocks, "heads": 16})
    with torch.device("meta"):
        model = build_classifier(config, latent_shape, 10)
        model(torch.empty(2, *latent_shape.shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_block_equals_torchs_pre_ln_encoder_layer():
    torch.manual_seed(0)
    block = TransformerBlock(width=32, ffw_width=48, heads=4, head_dim=8)
    reference = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    reference.load_state_dict(
        {
            "self_attn.in_proj_weight": block.qkv.weight,
            "self_attn.in_proj_bias": block.qkv.bias,
            "self_attn.out_proj.weight": block.project.weight,
            "self_attn.out_proj.bias": block.project.bias,
            "linear1.weight": block.ffw[0].weight,
            "linear1.bias": block.ffw[0].bias,
            "linear2.weight": block.ffw[2].weight,
            "linear2.bias": block.ffw[2].bias,
            "norm1.weight": block.attention_norm.weight,
            "norm1.bias": block.attention_norm.bias,
            "norm2.weight": block.ffw_norm.weight,
            "norm2.bias": block.ffw_norm.bias,
        }
    )
    tokens = torch.randn(3, 5, 32)
    torch.testing.assert_close(block(tokens), reference(tokens), atol=1e-5, rtol=1e-5)


def test_head_dim_alone_sets_the_attention_width():
    block = TransformerBlock(width=32, ffw_width=64, heads=4, head_dim=3)
    assert block.qkv.weight.shape == (3 * 12, 32)
    assert block(torch.randn(2, 5, 32)).shape == (2, 5, 32)


@pytest.mark.parametrize("architecture", get_args(ClassifierArchitecture))
def test_dropout_acts_only_on_the_input_of_the_last_layer(architecture):
    torch.manual_seed(0)
    model = build_classifier(classifier_config(architecture=architecture, dropout=0.5), LatentShape((2, 2), 8), 10)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [dropout.p for dropout in dropouts] == [0.5]

    last_layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    seen = {}
    dropouts[0].register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0], after=output))
    last_layer.register_forward_hook(lambda _, inputs, output: seen.update(head_input=inputs[0]))
    latents = torch.randn(4, 2, 2, 8)
    model.train()
    model(latents)
    first = dict(seen)
    model(latents)
    assert torch.equal(first["before"], seen["before"])
    assert not torch.equal(first["after"], seen["after"])
    assert torch.equal(seen["after"], seen["head_input"])


def test_positions_are_what_tells_the_cells_apart():
    torch.manual_seed(0)
    model = build_classifier(classifier_config(), LatentShape((4, 4), 8), 10).eval()
    latents = torch.randn(2, 4, 4, 8)
    permuted = latents.flatten(1, 2)[:, torch.randperm(16)].unflatten(1, (4, 4))
    assert (model(latents) - model(permuted)).abs().max() > 1e-4
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(latents), model(permuted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 3, 2)])
def test_transformer_takes_grids_of_any_dimension(grid):
    model = build_classifier(classifier_config(), LatentShape(grid, 8), 7)
    assert model.positions.shape[0] == LatentShape(grid, 8).cells
    assert model(torch.randn(2, *grid, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [
        ("auto", "1x1x16", ResidualMLPClassifier),
        ("auto", "2x2x16", LatentTransformer),
        ("mlp", "2x2x16", ResidualMLPClassifier),
        ("transformer", "1x1x16", LatentTransformer),
        ("convnext", "1x1x16", LatentConvNeXt),
        ("convnext", "2x2x16", LatentConvNeXt),
    ],
)
def test_architecture_follows_the_choice_and_the_grid(architecture, shape, expected):
    latent_shape = LatentShape.parse(shape)
    model = build_classifier(classifier_config(architecture=architecture), latent_shape, 3)
    assert type(model) is expected
    model(torch.randn(2, *latent_shape.shape)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_a_vector_is_cut_into_tokens(tokens):
    config = classifier_config({**SMALL, "vector_tokens": tokens}, architecture="transformer")
    model = build_classifier(config, LatentShape((1, 1), 48), 3)
    assert model.positions.shape == (tokens, 32)
    assert model.embed.in_features == 48 // tokens
    seen = []
    model.embed.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    latents = torch.randn(2, 1, 1, 48)
    assert model(latents).shape == (2, 3)
    assert torch.equal(seen[0], latents.reshape(2, tokens, -1))


def test_only_a_vector_is_cut_into_tokens():
    config = classifier_config({**SMALL, "vector_tokens": 3}, architecture="transformer")
    assert build_classifier(config, LatentShape((2, 2), 8), 3).positions.shape == (4, 32)
    with pytest.raises(ValueError, match="1x1x8 latents cannot be cut into 3 equal tokens"):
        build_classifier(config, LatentShape((1, 1), 8), 3)


def test_concatenated_tokens_reach_the_last_layer_cell_by_cell():
    torch.manual_seed(0)
    model = build_classifier(classifier_config({**SMALL, "pooling": "concatenate"}), LatentShape((2, 3), 8), 5).eval()
    assert model.head.weight.shape == (5, 6 * 32)
    seen = {}
    model.norm.register_forward_hook(lambda _, inputs, output: seen.update(tokens=output))
    model.head.register_forward_hook(lambda _, inputs, output: seen.update(features=inputs[0]))
    model(torch.randn(4, 2, 3, 8))
    assert torch.equal(seen["features"], seen["tokens"].flatten(1))
    model = build_classifier(classifier_config(), LatentShape((2, 3), 8), 5).eval()
    model.norm.register_forward_hook(lambda _, inputs, output: seen.update(tokens=output))
    model.head.register_forward_hook(lambda _, inputs, output: seen.update(features=inputs[0]))
    model(torch.randn(4, 2, 3, 8))
    assert torch.equal(seen["features"], seen["tokens"].mean(dim=1))


@pytest.mark.parametrize("architecture", get_args(ClassifierArchitecture))
def test_drop_path_rises_over_the_blocks_and_acts_in_training_alone(architecture):
    torch.manual_seed(0)
    config = classifier_config(architecture=architecture, dropout=0.0, drop_path=0.8)
    model = build_classifier(config, LatentShape((2, 2), 8), 10)
    assert [module.share for module in model.modules() if isinstance(module, DropPath)] == pytest.approx([0.4, 0.8])
    latents = torch.randn(16, 2, 2, 8)
    assert not torch.equal(model(latents), model(latents))
    plain = build_classifier(config.model_copy(update={"drop_path": None}), LatentShape((2, 2), 8), 10)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(latents), plain(latents))


@pytest.mark.parametrize("grid", [(6,), (2, 4), (2, 4, 2)])
def test_convnext_takes_grids_of_one_to_three_dimensions_and_halves_them(grid):
    torch.manual_seed(0)
    model = build_classifier(
        classifier_config(architecture="convnext", convnext={"downsampled_blocks": 1}), LatentShape(grid, 8), 7
    ).eval()
    seen = {}
    model.merge.register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0], after=output))
    latents = torch.randn(2, *grid, 8, requires_grad=True)
    logits = model(latents)
    assert logits.shape == (2, 7)
    assert seen["before"].shape == (2, *grid, 32)
    assert seen["after"].shape == (2, *(side // 2 for side in grid), 64)
    logits.sum().backward()
    assert (latents.grad.abs().sum(dim=-1) > 0).all()  # every cell matters


def test_a_convnext_block_equals_the_published_one():
    """Written with channels first, and its layers one by one."""
    torch.manual_seed(0)
    block = ConvNeXtBlock(6, kernel_size=3, expansion=2, dimensions=2, drop_path=0.0)
    hidden = torch.randn(2, 4, 5, 6)
    assert (block.scale == 1).all()
    nn.init.normal_(block.scale)
    mixed = F.conv2d(hidden.permute(0, 3, 1, 2), block.mix_cells.weight, block.mix_cells.bias, padding=1, groups=6)
    normed = F.layer_norm(mixed.permute(0, 2, 3, 1), (6,), block.norm.weight, block.norm.bias)
    first, _, second = block.ffw
    expected = hidden + block.scale * second(F.gelu(first(normed)))
    torch.testing.assert_close(block(hidden), expected)


def test_convnexts_kernel_sees_as_far_as_it_says():
    """A single cell reaches those within half a kernel, and no other."""
    torch.manual_seed(0)
    block = ConvNeXtBlock(4, kernel_size=5, expansion=2, dimensions=1, drop_path=0.0)
    changed = (hidden := torch.randn(1, 11, 4)).clone()
    changed[:, 5] += 1
    reached = (block(changed) - block(hidden)).abs().sum(dim=-1)[0] > 0
    assert reached.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


def test_convnext_says_which_sizes_it_lacks_and_which_it_cannot_have():
    with pytest.raises(ValueError, match="the block convnext is not given"):
        ClassificationConfig(**{**classifier_config().model_dump(), "architecture": "convnext", "convnext": None})
    with pytest.raises(ValueError, match=r"kernel_size \(4\) must be odd"):
        classifier_config(architecture="convnext", convnext={"kernel_size": 4})


@pytest.mark.parametrize(
    ("shape", "expected"), [("1x1x16", ResidualMLPClassifier), ("2x2x16", LatentConvNeXt), ("4x4x2", LatentConvNeXt)]
)
def test_auto_is_a_convnext_on_a_grid_where_its_sizes_are_given(shape, expected):
    config = classifier_config(convnext={"width": 8, "blocks": 1, "downsampled_blocks": 1})
    assert type(build_classifier(config, LatentShape.parse(shape), 3)) is expected


def test_each_cell_of_each_scale_is_a_token_with_its_scales_embedding():
    torch.manual_seed(0)
    shape = LatentShape.parse("1x1x5+2x2x3+4x4x2")
    model = build_classifier(classifier_config(), shape, 7).eval()
    assert type(model) is LatentTransformer
    assert model.positions.shape == (1 + 4 + 16, 32)
    seen = []
    model.embed.register_forward_hook(lambda _, inputs, output: seen.append(output))
    latents = torch.randn(2, shape.numbers)
    model(latents).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    for token, scale, numbers in ((0, 0, slice(0, 5)), (2, 1, slice(8, 11)), (20, 2, slice(47, 49))):
        torch.testing.assert_close(seen[0][:, token], model.embed[scale](latents[:, numbers]))
    assert ClassificationConfig.architecture_on(classifier_config(), shape) == "transformer"
    assert build_classifier(classifier_config(architecture="mlp"), shape, 7)(latents).shape == (2, 7)


def test_a_convnext_sees_the_cells_of_all_scales_on_the_finest_grid():
    torch.manual_seed(0)
    shape = LatentShape.parse("1x1x5+2x2x3+4x4x2")
    model = build_classifier(classifier_config(architecture="convnext"), shape, 7).eval()
    seen = {}
    model.stem.register_forward_hook(lambda _, inputs, output: seen.update(cells=inputs[0]))
    latents = torch.randn(2, shape.numbers)
    assert model(latents).shape == (2, 7)
    assert torch.equal(seen["cells"], to_cells(latents, shape))
    assert seen["cells"].shape == (2, 4, 4, 10)
