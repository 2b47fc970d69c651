from typing import get_args

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from spatial_functa_pipeline.config.diffusion import DenoiserArchitecture, DiffusionConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.denoisers import (
    DiTDenoiser,
    OfOriginals,
    ResidualMLPDenoiser,
    UNetDenoiser,
    build_denoiser,
)
from spatial_functa_pipeline.models.guidance import Guidance, GuidedDenoiser
from spatial_functa_pipeline.models.paths import CLEAN

# Tab. 6 and App. C.3: latent shape, conditional, residual blocks, multipliers, attention sides, dropout
PRESETS = {
    "cifar10-unconditional-8x8x16-nearest": ("8x8x16", False, 1, (1, 1), (4,), 0.4),
    "cifar10-unconditional-8x8x16-linear": ("8x8x16", False, 2, (2, 2), (4,), 0.4),
    "cifar10-unconditional-4x4x64": ("4x4x64", False, 2, (2, 2), (4,), 0.4),
    "cifar10-conditional-8x8x16": ("8x8x16", True, 3, (2, 2, 2), (8, 4), 0.1),
    "cifar10-conditional-4x4x64-nearest": ("4x4x64", True, 3, (2, 2), (4,), 0.0),
    "cifar10-conditional-4x4x64-linear": ("4x4x64", True, 3, (2, 2, 2), (4, 2), 0.0),
    "imagenet256-32x32x64": ("32x32x64", True, 2, (1, 2, 2, 2), (8, 16), 0.0),
}
SMALL_UNET = {
    "channels": 32,
    "multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_resolutions": (2,),
    "head_dim": 32,
}


def denoiser_config(unet=SMALL_UNET, **options):
    return DiffusionConfig(
        unet=unet,
        mlp={"width": 32, "blocks": 2},
        dit={"width": 32, "ffw_width": 48, "blocks": 2, "heads": 2, "vector_tokens": 2},
        training={"steps": 1, "batch_size": 1, "learning_rate": 1e-3},
        **options,
    )


def preset(name):
    shape, conditional, blocks, multipliers, sides, dropout = PRESETS[name]
    unet = {
        "channels": 320,
        "multipliers": multipliers,
        "residual_blocks": blocks,
        "attention_resolutions": sides,
        "dropout": dropout,
    }
    return denoiser_config(unet, conditional=conditional), LatentShape.parse(shape)


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def randomise(model):
    """Give every parameter, the zeroed ones too, a value, so that each input can reach the output."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_imagenet_preset_has_the_papers_277_million_parameters():
    config, latent_shape = preset("imagenet256-32x32x64")
    with torch.device("meta"):
        model = build_denoiser(config, latent_shape, 1000)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 3) == 277.402


@pytest.mark.parametrize("name", PRESETS)
def test_paper_presets_build_and_run(name):
    config, latent_shape = preset(name)
    with torch.device("meta"):
        model = build_denoiser(config, latent_shape, 10)
        noisy = torch.empty(2, *latent_shape.shape)
        labels = torch.zeros(2, dtype=torch.int64) if config.conditional else None
        predicted = model(noisy, torch.zeros(2, dtype=torch.int64), labels)
        predicted.sum().backward()
    assert predicted.shape == noisy.shape
    assert all(parameter.grad is not None for parameter in model.parameters())

    # Per level with attention: one after each residual block down, one more up; and one in the middle.
    levels = len(set(config.unet.attention_resolutions))
    assert count(model, Attention) == levels * (2 * config.unet.residual_blocks + 1) + 1
    residual_blocks = [module for module in model.modules() if isinstance(module, ResnetBlock2D)]
    assert {block.dropout.p for block in residual_blocks} == {config.unet.dropout}


def test_attention_sits_at_the_grid_sides_asked_for():
    config, latent_shape = preset("imagenet256-32x32x64")
    with torch.device("meta"):
        model = build_denoiser(config, latent_shape, 10)
        sides = []
        for module in model.modules():
            if isinstance(module, Attention):
                assert module.group_norm is not None
                assert module.heads * config.unet.head_dim == module.to_q.out_features
                module.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
        labels = torch.zeros(1, dtype=torch.int64)
        model(torch.empty(1, *latent_shape.shape), labels, labels)
    assert sides == [16, 16, 8, 8, 4, 8, 8, 8, 16, 16, 16]


def test_attention_at_a_side_the_unet_never_reaches_is_an_error():
    unet = {**SMALL_UNET, "attention_resolutions": (4, 2)}
    with pytest.raises(ValueError, match=r"\[2\].*8x8x4.*grid sides \[8, 4\]"):
        build_denoiser(denoiser_config(unet), LatentShape((8, 8), 4), 10)


def test_head_dim_must_divide_the_channels():
    with pytest.raises(ValueError, match=r"head_dim \(64\) must divide.*32 × 1 = 32"):
        build_denoiser(
            denoiser_config({**SMALL_UNET, "multipliers": (2, 1), "head_dim": 64, "attention_resolutions": ()}),
            LatentShape((4, 4), 4),
            10,
        )


@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_output_is_zero_at_the_start(architecture):
    torch.manual_seed(0)
    model = build_denoiser(denoiser_config(architecture=architecture), LatentShape((4, 4), 4), 10)
    predicted = model(torch.randn(3, 4, 4, 4), torch.tensor([0, 500, 999]), torch.tensor([0, 5, 10]))
    assert torch.equal(predicted, torch.zeros(3, 4, 4, 4))


def test_every_residual_branch_of_the_unet_starts_at_zero():
    model = build_denoiser(denoiser_config(), LatentShape((4, 4), 4), 10)
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            assert not module.conv2.weight.any()
            assert not module.conv2.bias.any()
        if isinstance(module, Attention):
            assert not module.to_out[0].weight.any()
            assert not module.to_out[0].bias.any()


def test_time_embedding_is_as_wide_as_the_base_channels_whatever_the_first_multiplier():
    model = build_denoiser(denoiser_config({**SMALL_UNET, "multipliers": (2, 2)}), LatentShape((4, 4), 4), 10)
    assert model.unet.time_embedding.linear_1.weight.shape == (4 * 32, 32)
    assert model.unet.class_embedding.weight.shape == (11, 4 * 32)


@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_time_class_and_every_cell_reach_the_output(architecture):
    torch.manual_seed(0)
    model = randomise(build_denoiser(denoiser_config(architecture=architecture), LatentShape((4, 4), 4), 10))
    noisy = torch.randn(2, 4, 4, 4)
    timesteps, labels = torch.tensor([10, 10]), torch.tensor([3, 3])
    reference = model(noisy, timesteps, labels)
    changed = noisy.clone()
    changed[0, 3, 0, 2] += 1
    for other in (
        model(noisy, torch.tensor([500, 10]), labels),
        model(noisy, timesteps, torch.tensor([10, 3])),
        model(changed, timesteps, labels),
    ):
        assert (other[0] - reference[0]).abs().max() > 1e-4
        torch.testing.assert_close(other[1], reference[1])


def test_unet_works_channel_last_on_a_grid_that_is_not_square():
    torch.manual_seed(0)
    config = denoiser_config({**SMALL_UNET, "attention_resolutions": (4,)})  # (4, 8), then (2, 4)
    model = randomise(build_denoiser(config, LatentShape((4, 8), 4), 10))
    assert [type(block).__name__ for block in model.unet.down_blocks] == ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]
    noisy, timesteps, labels = torch.randn(2, 4, 8, 4), torch.tensor([1, 2]), torch.tensor([0, 1])
    expected = model.unet(noisy.permute(0, 3, 1, 2), timesteps, labels).sample.permute(0, 2, 3, 1)
    torch.testing.assert_close(model(noisy, timesteps, labels), expected)


@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_labels_must_fit_the_denoiser(architecture):
    noisy, timesteps = torch.randn(2, 4, 4, 4), torch.tensor([1, 2])
    conditional = build_denoiser(denoiser_config(architecture=architecture), LatentShape((4, 4), 4), 10)
    assert conditional.num_classes == 10
    with pytest.raises(ValueError, match="conditional: pass labels"):
        conditional(noisy, timesteps)
    unconditional = build_denoiser(
        denoiser_config(architecture=architecture, conditional=False), LatentShape((4, 4), 4), 10
    )
    assert unconditional.num_classes is None
    assert unconditional(noisy, timesteps).shape == noisy.shape
    with pytest.raises(ValueError, match="unconditional: pass labels=None"):
        unconditional(noisy, timesteps, torch.tensor([0, 1]))


@pytest.mark.parametrize("architecture", ["mlp", "dit"])
def test_dropout_acts_in_training_only(architecture):
    config = denoiser_config(architecture=architecture).model_dump()
    noisy, timesteps, labels = torch.randn(2, 1, 1, 8), torch.tensor([1, 2]), torch.tensor([0, 1])
    for dropout in (0.0, 0.5):
        config[architecture]["dropout"] = dropout
        torch.manual_seed(0)
        model = randomise(build_denoiser(DiffusionConfig(**config), LatentShape((1, 1), 8), 10))
        assert torch.equal(model(noisy, timesteps, labels), model(noisy, timesteps, labels))
        model.train()
        assert torch.equal(model(noisy, timesteps, labels), model(noisy, timesteps, labels)) == (dropout == 0)


@pytest.mark.parametrize("grid", [(1, 1), (5,), (2, 3), (2, 3, 2)])
def test_a_dit_takes_grids_of_any_dimension_a_token_for_each_cell(grid):
    torch.manual_seed(0)
    shape = LatentShape(grid, 4)
    model = build_denoiser(denoiser_config(architecture="dit"), shape, 3)
    noisy, timesteps, labels = torch.randn(2, *shape.shape), torch.tensor([3.5, 700.0]), torch.tensor([0, 3])
    seen = []
    model.embed.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    assert torch.equal(model(noisy, timesteps, labels), torch.zeros_like(noisy))
    assert torch.equal(seen[0], noisy.view(2, 2, 2) if grid == (1, 1) else noisy.flatten(1, -2))
    assert randomise(model)(noisy, timesteps, labels).shape == noisy.shape


def test_a_dit_has_a_token_for_each_cell_of_each_scale_and_answers_in_the_order_of_the_latents():
    torch.manual_seed(0)
    shape = LatentShape.parse("1x1x4+2x2x2+4x4x1")
    model = build_denoiser(denoiser_config(architecture="dit"), shape, 3)
    given = (torch.randn(2, shape.numbers), torch.tensor([1.0, 2.0]), torch.tensor([0, 3]))
    assert model.positions.shape == (1 + 4 + 16, 32)
    assert torch.equal(model(*given), torch.zeros(2, shape.numbers))
    predicted = randomise(model)(*given)
    predicted.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.output.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in model.embed.parameters())
    with torch.no_grad():
        model.output[1].weight.zero_()
        model.output[1].bias.copy_(torch.tensor([5.0, 7.0]))
        changed = model(*given)
    assert torch.equal(changed[:, 4:12], torch.tensor([5.0, 7.0]).repeat(2, 4))  # the four cells of 2×2, and no others
    torch.testing.assert_close(changed[:, :4], predicted[:, :4])
    torch.testing.assert_close(changed[:, 12:], predicted[:, 12:])


def test_each_block_of_a_dit_starts_as_the_identity():
    torch.manual_seed(0)
    model = build_denoiser(denoiser_config(architecture="dit"), LatentShape((2, 2), 4), 3)
    tokens, condition = torch.randn(3, 4, 32), torch.randn(3, 32)
    for block in model.blocks:
        assert torch.equal(block(tokens, condition), tokens)
        assert not torch.equal(randomise(block)(tokens, condition), tokens)


def test_a_vector_that_cannot_be_cut_into_the_dits_tokens_is_an_error():
    with pytest.raises(ValueError, match="1x1x7 latents cannot be cut into 2 equal tokens"):
        build_denoiser(denoiser_config(architecture="dit"), LatentShape((1, 1), 7), 3)


@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_times_between_whole_ones_reach_the_output(architecture):
    torch.manual_seed(0)
    model = randomise(build_denoiser(denoiser_config(architecture=architecture), LatentShape((4, 4), 4), 10))
    noisy, labels = torch.randn(1, 4, 4, 4), torch.tensor([3])
    below, between, above = (model(noisy, torch.tensor([time]), labels) for time in (7.0, 7.5, 8.0))
    assert torch.equal(below, model(noisy, torch.tensor([7]), labels))
    assert min((between - below).abs().max(), (above - between).abs().max()) > 1e-5


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_kinds_start_without_effect_and_have_one_after_a_step(architecture, conditional):
    torch.manual_seed(0)
    config = denoiser_config(architecture=architecture, augmented_copies=True, conditional=conditional)
    model = build_denoiser(config, LatentShape((4, 4), 4), 10)
    noisy, timesteps = torch.randn(3, 4, 4, 4), torch.tensor([10, 10, 10])
    labels = torch.tensor([3, 3, 3]) if conditional else None
    originals, kinds = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2])

    def answers():
        return model(noisy, timesteps, labels, originals), model(noisy, timesteps, labels, kinds)

    zeroed = [name for name, parameter in model.named_parameters() if not parameter.any()]
    assert len([name for name in zeroed if name.endswith("class_embedding.kinds.weight")]) == 1
    randomise(model.get_submodule("unet" if architecture == "unet" else "output"))
    embedding = (model.unet if architecture == "unet" else model).class_embedding
    nn.init.zeros_(embedding.kinds.weight)
    if architecture == "dit":
        randomise(model.norm)
    assert torch.equal(*answers())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model(noisy, timesteps, labels, kinds).square().sum().backward()
    optimizer.step()
    before, after = answers()
    assert torch.equal(before[0], after[0])
    assert (before[1:] - after[1:]).abs().amax(dim=(1, 2, 3)).min() > 1e-5

    asked = OfOriginals(model)
    assert asked.num_classes == model.num_classes
    assert torch.equal(asked(noisy, timesteps, labels), before)


@pytest.mark.parametrize("architecture", get_args(DenoiserArchitecture))
def test_kinds_must_fit_the_denoiser(architecture):
    noisy, timesteps, kinds = torch.randn(2, 4, 4, 4), torch.tensor([1, 2]), torch.tensor([0, 2])
    options = {"architecture": architecture, "conditional": False}
    plain = build_denoiser(denoiser_config(**options), LatentShape((4, 4), 4), 10)
    with pytest.raises(ValueError, match="not made for augmented copies: pass kinds=None"):
        plain(noisy, timesteps, None, kinds)
    knowing = build_denoiser(denoiser_config(**options, augmented_copies=True), LatentShape((4, 4), 4), 10)
    with pytest.raises(ValueError, match=r"knows kinds of copies: pass kinds \(0 for originals\)"):
        knowing(noisy, timesteps)


@pytest.mark.parametrize(
    ("architecture", "grid", "expected"),
    [
        ("auto", (1, 1), ResidualMLPDenoiser),
        ("auto", (4, 4), UNetDenoiser),
        ("mlp", (4, 4), ResidualMLPDenoiser),
        ("mlp", (4,), ResidualMLPDenoiser),
        ("dit", (4, 4), DiTDenoiser),
        ("dit", (1, 1), DiTDenoiser),
    ],
)
def test_architecture_follows_the_choice_and_the_grid(architecture, grid, expected):
    model = build_denoiser(denoiser_config(architecture=architecture), LatentShape(grid, 4), 10)
    assert type(model) is expected
    predicted = model(torch.randn(2, *grid, 4), torch.tensor([1, 2]), torch.tensor([0, 10]))
    predicted.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_latents_of_several_scales_have_the_mlp():
    shape = LatentShape.parse("1x1x4+2x2x1")
    model = build_denoiser(denoiser_config(), shape, 10)
    assert type(model) is ResidualMLPDenoiser
    assert model(torch.randn(2, 8), torch.tensor([1, 2]), torch.tensor([0, 10])).shape == (2, 8)
    with pytest.raises(
        ValueError, match=r"unet needs latents of one grid, and 1x1x4\+2x2x1 has several scales; choose dit or mlp"
    ):
        build_denoiser(denoiser_config(architecture="unet"), shape, 10)


def test_an_unconditional_denoiser_refuses_labels_with_guidance_too():
    model = build_denoiser(denoiser_config(conditional=False), LatentShape((1, 1), 4), 10)
    guided = GuidedDenoiser(model, Guidance(3.0, None))
    with pytest.raises(ValueError, match="this denoiser is unconditional"):
        guided(torch.zeros(2, 1, 1, 4), CLEAN, torch.tensor([0, 1]))
