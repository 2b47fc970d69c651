"""Encoders beside the field: shapes, round trips, and what each asks of a latent shape."""

import math

import pytest
import torch

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec, Encoder
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.image_quality import PatchPCA
from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.models.linear_encoder import LinearEncoder
from spatial_functa_pipeline.models.weights import (
    pack_autoencoder,
    pack_field,
    pack_linear_encoder,
    read_weights,
    unpack_encoder,
    write_weights,
)
from spatial_functa_pipeline.training.linear_code import fit_linear_encoder

CPU = torch.device("cpu")


def images(count=20, resolution=(8, 8), channels=3):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *resolution, channels), generator=generator, dtype=torch.uint8)
    return Images.from_array(pixels.numpy(), [0] * count, ("any",))


def spec(latent_shape, resolution=(8, 8), channels=3):
    return CodeSpec(LatentShape.parse(latent_shape), resolution, channels)


def autoencoder_config(**changes):
    sizes = {"channels": 8, "multipliers": (1, 2), "residual_blocks": 1, "validation_images": 1}
    return AutoencoderConfig(**sizes | changes, training={"steps": 1, "batch_size": 1, "learning_rate": 1.0})


def encoders():
    torch.manual_seed(0)
    field = FieldConfig(latent_shape="2x2x5", interpolation="nearest", resolution=(8, 8), channels=3, width=8, depth=3)
    return {
        "field": SpatialField(field.spec),
        "pca": fit_linear_encoder(images(), spec("2x2x5"), "pca"),
        "pixels": fit_linear_encoder(images(), spec("2x2x48"), "pixels"),
        "autoencoder": Autoencoder(spec("2x2x5"), autoencoder_config()),
    }


@pytest.mark.parametrize("kind", ["field", "pca", "pixels", "autoencoder"])
def test_every_encoder_maps_images_to_latents_and_back(kind, tmp_path):
    encoder = encoders()[kind].eval()
    assert isinstance(encoder, Encoder)
    pictures = images().batch(range(3)).float() / 255
    with torch.no_grad():
        latents = encoder.encode(pictures)
        decoded, forwarded = encoder(pictures)
        assert latents.shape == (3, *encoder.spec.latent_shape.shape)
        assert decoded.shape == pictures.shape
        torch.testing.assert_close(forwarded, latents)
        torch.testing.assert_close(encoder.decode(latents, (8, 8)), decoded)
        # Images do not look at each other.
        torch.testing.assert_close(encoder.encode(pictures[1:2]), latents[1:2], rtol=1e-4, atol=1e-5)
        if encoder.any_resolution:
            assert encoder.decode(latents, (16, 16)).shape == (3, 16, 16, 3)
        else:
            with pytest.raises(ValueError, match=r"decodes at \(8, 8\) only, not at \(16, 16\)"):
                encoder.decode(latents, (16, 16))
    with pytest.raises(ValueError, match=r"was built for images of shape \(8, 8, 3\), got \(8, 8, 1\)"):
        encoder.encode(pictures[..., :1])

    field = FieldConfig(latent_shape="2x2x5", interpolation="nearest", resolution=(8, 8), channels=3, width=8, depth=3)
    pack = {
        "field": lambda: pack_field(encoder, field),
        "autoencoder": lambda: pack_autoencoder(encoder, autoencoder_config()),
    }.get(kind, lambda: pack_linear_encoder(encoder))
    write_weights(tmp_path / "encoder.safetensors", pack())
    again = unpack_encoder(read_weights(tmp_path / "encoder.safetensors"), CPU)
    assert (type(again), again.spec) == (type(encoder), encoder.spec)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again.encode(pictures), latents)


@pytest.mark.parametrize("grid", ["1x1", "2x4"])
def test_codes_of_components_are_those_of_the_linear_reference_point(grid):
    code = spec(f"{grid}x6")
    encoder = fit_linear_encoder(images(40), code, "pca")
    reference = PatchPCA(images(40).batch(range(40)), code.cell, 6)
    pictures = images(7).batch(range(7)).float() / 255
    torch.testing.assert_close(encoder(pictures)[0].double(), reference.reconstruct(pictures), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.basis.T @ encoder.basis, torch.eye(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("resolution", "channels", "latent_shape"), [((8, 8), 3, "4x2x24"), ((12,), 1, "3x4")])
def test_pixels_are_kept_but_for_their_mean(resolution, channels, latent_shape):
    data = images(9, resolution, channels)
    encoder = fit_linear_encoder(data, spec(latent_shape, resolution, channels), "pixels")
    pixels = data.batch(range(9))
    decoded, latents = encoder(pixels.float() / 255)
    assert torch.equal((decoded * 255).round().to(torch.uint8), pixels)
    assert abs(latents.mean()) < 1e-6
    assert latents.std(correction=0) == pytest.approx((pixels.float() / 255).std(correction=0).item(), rel=1e-5)


def test_a_linear_code_has_no_more_numbers_than_its_cell():
    with pytest.raises(ValueError, match="a linear code of 49 numbers is for cells of as many or more, not of 48"):
        LinearEncoder(spec("2x2x49"))
    with pytest.raises(ValueError, match="the pixels of a cell are 48 numbers, and not 40"):
        fit_linear_encoder(images(), spec("2x2x40"), "pixels")


@pytest.mark.parametrize(
    ("latent_shape", "multipliers", "levels"),
    [
        ("8x8x4", (1, 2), (1,)),
        ("4x4x4", (1, 2), (1, 2)),
        ("2x2x4", (1, 2), (1, 2, 2)),
        ("1x1x4", (1, 2, 4), (1, 2, 4, 4)),
    ],
)
def test_levels_follow_from_the_latent_grid(latent_shape, multipliers, levels):
    """Of (1, 2, 4) the four levels of latent diffusion's KL-f8 are (1, 2, 4, 4), and KL-f4's three (1, 2, 4)."""
    config = autoencoder_config(multipliers=multipliers)
    assert config.multipliers_of_levels(LatentShape.parse(latent_shape), (8, 8)) == levels
    autoencoder = Autoencoder(spec(latent_shape), config)
    assert tuple(autoencoder.network.config.block_out_channels) == tuple(8 * level for level in levels)
    with torch.no_grad():
        assert autoencoder.encode(torch.rand(1, 8, 8, 3)).shape == (1, *LatentShape.parse(latent_shape).shape)


@pytest.mark.parametrize(
    ("latent_shape", "resolution"), [("4x4x8", (12, 12)), ("4x2x8", (8, 8)), ("4x8", (8,)), ("2x2x2x8", (8, 8, 8))]
)
def test_a_grid_that_halving_does_not_reach_is_refused(latent_shape, resolution):
    with pytest.raises(ValueError, match=f"which {latent_shape} is not: as latent_shape choose a grid such as"):
        autoencoder_config().multipliers_of_levels(LatentShape.parse(latent_shape), resolution)


def test_latents_are_the_posteriors_mean_and_noise_is_drawn_around_it():
    torch.manual_seed(0)
    autoencoder = Autoencoder(spec("2x2x5"), autoencoder_config()).eval()
    pictures = torch.rand(2, 8, 8, 3)
    with torch.no_grad():
        moments = autoencoder.network.encode(2 * pictures.movedim(-1, 1) - 1).latent_dist
        torch.testing.assert_close(autoencoder.encode(pictures), moments.mean.movedim(1, -1))
        noisy, divergence = autoencoder.with_noise(pictures, torch.Generator().manual_seed(1))
        noise = torch.randn(moments.mean.shape, generator=torch.Generator().manual_seed(1))
        expected = autoencoder.decode((moments.mean + moments.std * noise).movedim(1, -1))
    torch.testing.assert_close(noisy, expected)
    variance = moments.logvar.exp()
    nats = 0.5 * (moments.mean.square() + variance - 1 - moments.logvar).sum(dim=(1, 2, 3))
    torch.testing.assert_close(divergence, nats)
    assert all(math.isfinite(value) and value > 0 for value in divergence.tolist())
