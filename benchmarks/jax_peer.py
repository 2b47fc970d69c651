"""The usual formulation in JAX, written for comparison: the inner loop of one image, mapped over a batch with `vmap`.

Nothing is assumed beyond what a reader of the paper would write down: one field over one image, three `jax.grad`s of its
loss, `jax.value_and_grad` through them, all of it jitted. Parameters are a dict with the names and shapes of
`SpatialField.named_parameters()`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spatial_functa_pipeline.fields.field import FieldSpec
from spatial_functa_pipeline.fields.geometry import binary_coordinates, interpolation_matrix, pixel_centres

Parameters = dict[str, jax.Array]


def to_jax(named: dict[str, np.ndarray]) -> Parameters:
    """The parameters as JAX arrays."""
    return {name: jnp.asarray(value) for name, value in named.items()}


def build(spec: FieldSpec) -> tuple[Callable[..., jax.Array], Callable[..., tuple[jax.Array, Parameters]]]:
    """`(encode, outer)`, both jitted, for a two-dimensional field whose λ is 1×1.

    `encode(parameters, images (B, n, n, h))` gives latents (B, s, s, c);
    `outer(parameters, images)` gives the mean squared error of the batch and its gradient.
    """
    (rows, columns), (height, width), layers = spec.latent_shape.grid, spec.resolution, spec.depth - 1
    patch = (height // rows, width // columns)
    if spec.interpolation == "nearest":
        # The coordinates of a cell (patch, D); modulations are broadcast over them.
        coordinates = jnp.asarray(pixel_centres(patch).reshape(1, 1, *patch, 2), jnp.float32)
    else:
        coordinates = jnp.asarray(binary_coordinates(spec.resolution).reshape(height, width, -1), jnp.float32)
        along = [
            jnp.asarray(interpolation_matrix(n, s), jnp.float32)
            for n, s in zip(spec.resolution, spec.latent_shape.grid, strict=True)
        ]

    def decode(parameters: Parameters, latent: jax.Array) -> jax.Array:
        modulations = latent @ parameters["modulation_weight"][..., 0, 0].T + parameters["modulation_bias"]
        if spec.interpolation == "nearest":
            modulations = modulations[:, :, None, None, :]
        else:
            modulations = jnp.einsum("xi,yj,ijm->xym", *along, modulations)
        hidden = coordinates
        for layer, shift in enumerate(jnp.split(modulations, layers, axis=-1)):
            weight, bias = parameters[f"layers.{layer}.weight"], parameters[f"layers.{layer}.bias"]
            hidden = jnp.sin(spec.omega0 * (hidden @ weight.T + bias + shift))
        pixels = hidden @ parameters[f"layers.{layers}.weight"].T + parameters[f"layers.{layers}.bias"] + 0.5
        if spec.interpolation == "nearest":
            pixels = pixels.transpose(0, 2, 1, 3, 4).reshape(height, width, spec.channels)
        return pixels

    def fit(parameters: Parameters, image: jax.Array) -> jax.Array:
        def loss(latent: jax.Array) -> jax.Array:
            return jnp.square(decode(parameters, latent) - image).sum() / (patch[0] * patch[1] * spec.channels)

        latent = jnp.zeros((*spec.latent_shape.grid, spec.latent_shape.channels), jnp.float32)
        for _ in range(spec.inner_steps):
            latent = latent - jnp.clip(parameters["inner_rates"], 0, 1) * jax.grad(loss)(latent)
        return latent

    def loss(parameters: Parameters, images: jax.Array) -> jax.Array:
        latents = jax.vmap(fit, (None, 0))(parameters, images)
        return jnp.square(jax.vmap(decode, (None, 0))(parameters, latents) - images).mean()

    return jax.jit(jax.vmap(fit, (None, 0))), jax.jit(jax.value_and_grad(loss))
