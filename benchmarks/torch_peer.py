"""The usual formulation in PyTorch, written for comparison: autograd in the inner loop, `create_graph` when training.

Nothing is assumed beyond what a reader of the paper would write down. `parameters` is a dict with the names and
shapes of `SpatialField.named_parameters()`; only two-dimensional fields whose λ is 1×1 are covered.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spatial_functa_pipeline.fields.field import FieldSpec
from spatial_functa_pipeline.fields.geometry import binary_coordinates, interpolation_matrix, pixel_centres

Parameters = dict[str, Tensor]


class TorchPeer:
    """The field of `spec` as plain functions of its parameters, in the precision `dtype`."""

    def __init__(self, spec: FieldSpec, dtype: torch.dtype = torch.float32) -> None:
        self.spec = spec
        self.patch = spec.cell
        if spec.interpolation == "nearest":
            # The coordinates of a cell; modulations are broadcast over them.
            self.coordinates = pixel_centres(self.patch).reshape(*self.patch, 2).to(dtype)
        else:
            self.coordinates = binary_coordinates(spec.resolution).reshape(*spec.resolution, -1).to(dtype)
            sides = zip(spec.resolution, spec.latent_shape.grid, strict=True)
            self.along = [interpolation_matrix(n, s).to(dtype) for n, s in sides]

    def decode(self, parameters: Parameters, latents: Tensor) -> Tensor:
        """Images (B, n, n, h) of latents (B, s, s, c)."""
        modulations = F.linear(latents, parameters["modulation_weight"].flatten(1), parameters["modulation_bias"])
        if self.spec.interpolation == "nearest":
            modulations = modulations[:, :, :, None, None, :]
        else:
            modulations = torch.einsum("xi,yj,bijm->bxym", *self.along, modulations)
        layers = self.spec.depth - 1
        hidden = self.coordinates
        for layer, shift in enumerate(modulations.chunk(layers, dim=-1)):
            weight, bias = parameters[f"layers.{layer}.weight"], parameters[f"layers.{layer}.bias"]
            hidden = torch.sin(self.spec.omega0 * (F.linear(hidden, weight, bias) + shift))
        pixels = F.linear(hidden, parameters[f"layers.{layers}.weight"], parameters[f"layers.{layers}.bias"]) + 0.5
        if self.spec.interpolation == "nearest":
            pixels = pixels.transpose(2, 3).reshape(len(latents), *self.spec.resolution, self.spec.channels)
        return pixels

    def encode(self, parameters: Parameters, images: Tensor, *, create_graph: bool = False) -> Tensor:
        """Latents (B, s, s, c) of images (B, n, n, h): gradient steps from zero."""
        shape = (len(images), *self.spec.latent_shape.grid, self.spec.latent_shape.channels)
        latents = torch.zeros(shape, dtype=images.dtype, requires_grad=True)
        pixels = self.patch[0] * self.patch[1] * self.spec.channels
        for _ in range(self.spec.inner_steps):
            loss = (self.decode(parameters, latents) - images).square().sum() / pixels
            (gradient,) = torch.autograd.grad(loss, latents, create_graph=create_graph)
            latents = latents - parameters["inner_rates"].clamp(0, 1) * gradient
            if not create_graph:
                latents = latents.detach().requires_grad_()
        return latents if create_graph else latents.detach()

    def outer(self, parameters: Parameters, images: Tensor) -> tuple[Tensor, Parameters]:
        """The mean squared error of the batch, and its gradient with respect to all parameters."""
        latents = self.encode(parameters, images, create_graph=True)
        loss = (self.decode(parameters, latents) - images).square().mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.detach(), dict(zip(parameters, gradients, strict=True))
