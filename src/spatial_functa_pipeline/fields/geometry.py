"""Where the pixels are, and which latent cells they depend on (Sec. 4; App. C, "Coordinate representation").

Shapes, for any dimension D: B images of `(*resolution, channels)`; a latent grid `(*grid,)` of S cells; P pixels per
cell; X = S·P pixels in all; M features of a modulation. A geometry turns a batch of images into N rows of Q points,
which the field treats alike: for `nearest` the N = B·S cells with their Q = P pixels, for `linear` the N = B images with
their Q = X pixels.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Literal

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells

Interpolation = Literal["nearest", "linear"]

_FLOATS_AT_ONCE = 2**20
"""Of the modulations of pixels, which are held for some images at a time."""


def pixel_centres(resolution: Sequence[int]) -> Tensor:
    """Centres (i + ½)/n of a grid of pixels in [0, 1]^D, `ij` order: `(prod(resolution), D)`."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in resolution]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def cosines(points: Tensor, pixels: Sequence[int]) -> Tensor:
    """The cosine series of a box of pixels, at any points of it.

    Args:
        points: `(Q, D)` in [0, 1]^D.
        pixels: of the box along each axis, P in all.

    Returns:
        `(Q, P)`. At the centres of the pixels these are the orthonormal matrix of the cosine transform (DCT-II).
    """
    series = torch.ones_like(points[:, :1])
    for axis, n in enumerate(pixels):
        order = torch.arange(n, dtype=points.dtype, device=points.device)
        norm = torch.where(order > 0, 2.0, 1.0).to(points).div(n).sqrt()
        waves = norm * torch.cos(torch.pi * order * points[:, axis, None])
        series = (series[:, :, None] * waves[:, None, :]).flatten(1)
    return series


def cosine_interpolation(points: Tensor, pixels: Sequence[int]) -> Tensor:
    """`(Q, P)`: from the values at a box's pixels to those of their cosine series at points `(Q, D)` of [0, 1]^D."""
    return cosines(points, pixels) @ cosines(pixel_centres(pixels).to(points), pixels).T


def binary_coordinates(resolution: Sequence[int], trained_resolution: Sequence[int] | None = None) -> Tensor:
    """Binary code of the pixel index along each axis, most significant bit first (App. C).

    A field trained at one resolution has a fixed number of bits. At another resolution a pixel gets the code of the
    trained pixel that its centre falls into; what lies between is left to the interpolated modulations.

    Returns `(prod(resolution), bits)` of zeros and ones, with ⌈log₂ n⌉ bits for each trained axis of n pixels.
    """
    trained_resolution = trained_resolution or resolution
    codes = []
    for n, trained in zip(resolution, trained_resolution, strict=True):
        index = torch.div((2 * torch.arange(n) + 1) * trained, 2 * n, rounding_mode="floor")
        bits = max(1, (trained - 1).bit_length())
        codes.append((index[:, None] >> torch.arange(bits - 1, -1, -1)) & 1)
    index = torch.cartesian_prod(*(torch.arange(n) for n in resolution)).reshape(prod(resolution), -1)
    return torch.cat([code[index[:, axis]] for axis, code in enumerate(codes)], dim=-1).double()


def interpolation_matrix(pixels: int, cells: int) -> Tensor:
    """Weights `(pixels, cells)` of linear interpolation along one axis, between cell centres (k + ½)/cells.

    Pixels outside the outermost centres take the outermost cell's value: every row sums to one.
    """
    position = ((torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels * cells - 0.5).clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def interpolation_neighbours(resolution: Sequence[int], grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The 2^D cells around each pixel and their weights, `(prod(resolution), 2^D)`: the rows of the interpolation matrix."""
    cell, weight = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.float64)
    for n, s in zip(resolution, grid, strict=True):
        values, cells = interpolation_matrix(n, s).topk(min(2, s), dim=1)
        cell = (cell[:, None, :, None] * s + cells[None, :, None, :]).flatten(2).flatten(0, 1)
        weight = (weight[:, None, :, None] * values[None, :, None, :]).flatten(2).flatten(0, 1)
    return cell.to(torch.int32), weight


class NearestGeometry(nn.Module):
    """1-NN interpolation: each pixel belongs to one cell, and all cells share the coordinates of [0, 1]^D."""

    coordinates: Tensor
    cell: Tensor
    weight: Tensor

    def __init__(self, grid: Sequence[int], resolution: Sequence[int], trained_resolution: Sequence[int]) -> None:
        super().__init__()
        if any(n % s for n, s in zip(resolution, grid, strict=True)):
            raise ValueError(f"resolution {tuple(resolution)} must be a multiple of the latent grid {tuple(grid)}")
        self.grid, self.resolution = tuple(grid), tuple(resolution)
        patch = tuple(n // s for n, s in zip(resolution, grid, strict=True))
        self.register_buffer("coordinates", pixel_centres(patch).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("cell", torch.zeros(prod(patch), 1, dtype=torch.int32), persistent=False)
        self.register_buffer("weight", torch.ones(prod(patch), 1), persistent=False)

    @property
    def places(self) -> Tensor:
        """Where in its cell each point is, `(Q, D)`: in [0, 1]^D, or beyond its borders."""
        return self.coordinates

    @property
    def cells_per_row(self) -> int:
        """Cells that the points of a row depend on."""
        return 1

    @property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """For each point of a row the cells whose modulations it takes, `(Q, k)`, and their weights, `(Q, k)`."""
        return self.cell, self.weight

    def to_points(self, images: Tensor) -> Tensor:
        """`(B, *resolution, channels)` → `(B·S, P, channels)`."""
        return cut_into_cells(images, self.grid).flatten(0, len(self.grid))

    def to_images(self, points: Tensor) -> Tensor:
        """`(B·S, P, channels)` → `(B, *resolution, channels)`, the inverse of `to_points`."""
        return join_cells(points.reshape(-1, *self.grid, *points.shape[1:]), self.resolution)

    def to_cells(self, points: Tensor) -> Tensor:
        """`(B·S, P, channels)` → cell by cell `(B, *grid, P·channels)`."""
        return points.reshape(-1, *self.grid, points.shape[1] * points.shape[2])

    def from_cells(self, cells: Tensor, channels: int) -> Tensor:
        """The inverse of `to_cells`."""
        return cells.reshape(-1, cells.shape[-1] // channels, channels)

    def spread(self, modulations: Tensor) -> Tensor:
        """Modulations of the cells `(B, *grid, M)` → of the points `(B·S, 1, M)`, the same for a cell's pixels."""
        return modulations.reshape(-1, 1, modulations.shape[-1])

    def gather(self, gradients: Tensor) -> Tensor:
        """Adjoint of `spread`: gradients of what it gave `(B·S, 1, M)` → at the cells `(B, *grid, M)`."""
        return gradients.reshape(-1, *self.grid, gradients.shape[-1])

    def differentiate(self, modulations: Tensor, basis: Tensor) -> Tensor:
        """Spread modulations `(B·S, 1, M)` through basis `(P, channels, M)`: pixels `(B·S, P, channels)`.

        A basis `(S·P, channels, M)` has for each cell its own.
        """
        if len(basis) > len(self.coordinates):
            cells = modulations.reshape(-1, prod(self.grid), modulations.shape[-1])
            pixels = torch.einsum("bsm,spm->bsp", cells, self._of_cells(basis))
            return pixels.reshape(-1, len(self.coordinates), basis.shape[1])
        return (modulations.flatten(1) @ basis.flatten(0, 1).T).unflatten(-1, basis.shape[:2])

    def project(self, residual: Tensor, basis: Tensor) -> Tensor:
        """Adjoint of spreading and `differentiate`: residual `(B·S, P, channels)` → cells `(B, *grid, M)`."""
        if len(basis) > len(self.coordinates):
            of_cells = self._of_cells(basis)
            cells = torch.einsum("bsp,spm->bsm", residual.reshape(-1, *of_cells.shape[:2]), of_cells)
            return cells.reshape(-1, *self.grid, basis.shape[-1])
        return (residual.flatten(1) @ basis.flatten(0, 1)).reshape(-1, *self.grid, basis.shape[-1])

    def _of_cells(self, basis: Tensor) -> Tensor:
        """`(S·P, channels, M)` → `(S, P·channels, M)`."""
        return basis.reshape(prod(self.grid), -1, basis.shape[-1])


class OverlappingGeometry(NearestGeometry):
    """To decode between the pixels: cells of 1-NN interpolation that are continued beyond their borders, and blended there.

    A row has a cell's points and those of its neighbours that lie within the overlap. Along each axis a cell's weight falls
    linearly across the border, from 1 to 0; at each point the weights of all cells sum to 1. There is nothing to blend with
    beyond the edge of the image, nor along an axis of one cell.

    Args:
        grid: cells along each axis.
        resolution: of the images, a multiple of the grid.
        trained_resolution: whose pixels the overlap is measured in.
        overlap: how far a cell is continued, in trained pixels, at most ½: at the centres of the trained pixels cells are
            then alone, and have the values that they were fitted to.
        movable: how far points may be moved from the centres of the pixels, in pixels of `resolution`, at most ½.
    """

    def __init__(
        self,
        grid: Sequence[int],
        resolution: Sequence[int],
        trained_resolution: Sequence[int],
        overlap: float,
        movable: float = 0.0,
    ) -> None:
        super().__init__(grid, resolution, trained_resolution)
        self._reach = [overlap * cells / trained for cells, trained in zip(grid, trained_resolution, strict=True)]
        self._margins = [  # points of a neighbour, along each axis
            max(0, ceil(overlap * pixels / trained - 0.5 + movable)) if cells > 1 else 0
            for pixels, trained, cells in zip(resolution, trained_resolution, grid, strict=True)
        ]
        self._sides = [pixels // cells for pixels, cells in zip(resolution, grid, strict=True)]
        positions = [
            (torch.arange(-margin, side + margin, dtype=torch.float64) + 0.5) / side
            for side, margin in zip(self._sides, self._margins, strict=True)
        ]
        coordinates = torch.stack(torch.meshgrid(*positions, indexing="ij"), dim=-1).flatten(0, -2)
        self.coordinates = coordinates.to(torch.get_default_dtype())
        self.cell, self.weight = self.cell[:1].repeat(len(coordinates), 1), self.weight[:1].repeat(len(coordinates), 1)

    def blended(self, points: Tensor, coordinates: Tensor) -> Tensor:
        """`(B·S, Q, channels)`, at coordinates `(Q, D)` → `(B, *resolution, channels)`: the cells' weighted means."""
        window = self._window(coordinates)
        return self._added(points * window) / self._added(window.expand(prod(self.grid), -1, -1))

    def _window(self, coordinates: Tensor) -> Tensor:
        """Weights of a cell's points, `(Q, 1)`: the product over the axes. At the image's edges they are too small."""
        window = torch.ones_like(coordinates[:, :1])
        for axis, (reach, margin) in enumerate(zip(self._reach, self._margins, strict=True)):
            if margin:
                inside = 0.5 - (coordinates[:, axis, None] - 0.5).abs()  # distance from the border, negative beyond it
                window = window * (0.5 + inside / (2 * reach)).clamp(0, 1)
        return window

    def _added(self, points: Tensor) -> Tensor:
        """`(B·S, Q, channels)` → `(B, *resolution, channels)`: where cells overlap, their sum."""
        dims = len(self.grid)
        extended = [side + 2 * margin for side, margin in zip(self._sides, self._margins, strict=True)]
        cells = points.reshape(-1, *self.grid, *extended, points.shape[-1])
        for axis, (side, margin) in enumerate(zip(self._sides, self._margins, strict=True), start=1):
            within = dims + axis
            before, inside, after = cells.split([margin, side, margin], dim=within)
            cells, borders = inside.clone(), self.grid[axis - 1] - 1
            firsts, lasts = cells.narrow(within, 0, margin), cells.narrow(within, side - margin, margin)
            firsts.narrow(axis, 1, borders).add_(after.narrow(axis, 0, borders))
            lasts.narrow(axis, 0, borders).add_(before.narrow(axis, 1, borders))
        return join_cells(cells.flatten(dims + 1, 2 * dims), self.resolution)


class LinearGeometry(nn.Module):
    """Multilinear interpolation of the cells' modulations; coordinates are the binary code of the pixel's index.

    Interpolation is a fixed linear map, applied axis by axis, so that it can be differentiated twice.
    """

    coordinates: Tensor
    cell: Tensor
    weight: Tensor

    def __init__(self, grid: Sequence[int], resolution: Sequence[int], trained_resolution: Sequence[int]) -> None:
        super().__init__()
        self.grid, self.resolution = tuple(grid), tuple(resolution)
        coordinates = binary_coordinates(resolution, trained_resolution).to(torch.get_default_dtype())
        self.register_buffer("coordinates", coordinates, persistent=False)
        for axis, (n, s) in enumerate(zip(resolution, grid, strict=True)):
            weights = interpolation_matrix(n, s).to(torch.get_default_dtype())
            self.register_buffer(f"weights_{axis}", weights, persistent=False)
        cell, weight = interpolation_neighbours(resolution, grid)
        self.register_buffer("cell", cell, persistent=False)
        self.register_buffer("weight", weight.to(torch.get_default_dtype()), persistent=False)

    @property
    def places(self) -> Tensor:
        """Where in its cell each point of a cell is, `(P, D)` in [0, 1]^D."""
        return pixel_centres([n // s for n, s in zip(self.resolution, self.grid, strict=True)])

    @property
    def cells_per_row(self) -> int:
        """Cells that the points of a row depend on."""
        return prod(self.grid)

    @property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """For each point of a row the cells whose modulations it takes, `(Q, k)`, and their weights, `(Q, k)`."""
        return self.cell, self.weight

    def to_points(self, images: Tensor) -> Tensor:
        """`(B, *resolution, channels)` → `(B, X, channels)`."""
        return images.reshape(len(images), -1, images.shape[-1])

    def to_images(self, points: Tensor) -> Tensor:
        """`(B, X, channels)` → `(B, *resolution, channels)`."""
        return points.reshape(len(points), *self.resolution, points.shape[-1])

    def to_cells(self, points: Tensor) -> Tensor:
        """`(B, X, channels)` → cell by cell `(B, *grid, P·channels)`. Raises ValueError if the grid does not divide it."""
        return cut_into_cells(self.to_images(points), self.grid).flatten(-2)

    def from_cells(self, cells: Tensor, channels: int) -> Tensor:
        """The inverse of `to_cells`. Raises ValueError as it does."""
        if any(n % s for n, s in zip(self.resolution, self.grid, strict=True)):
            raise ValueError(f"resolution {self.resolution} must be a multiple of the latent grid {self.grid}")
        return self.to_points(join_cells(cells.unflatten(-1, (-1, channels)), self.resolution))

    def spread(self, modulations: Tensor) -> Tensor:
        """Modulations of the cells `(B, *grid, M)` → interpolated at the pixels `(B, X, M)`."""
        for axis in range(len(self.grid)):
            weights = getattr(self, f"weights_{axis}")
            modulations = torch.tensordot(weights, modulations, dims=([1], [axis + 1])).movedim(0, axis + 1)
        return modulations.reshape(len(modulations), -1, modulations.shape[-1])

    def gather(self, gradients: Tensor) -> Tensor:
        """Adjoint of `spread`: gradients at the pixels `(B, X, M)` → at the cells `(B, *grid, M)`."""
        gradients = self.to_images(gradients)
        for axis in reversed(range(len(self.grid))):
            weights = getattr(self, f"weights_{axis}")
            gradients = torch.tensordot(weights, gradients, dims=([0], [axis + 1])).movedim(0, axis + 1)
        return gradients

    def differentiate(self, modulations: Tensor, basis: Tensor) -> Tensor:
        """Spread modulations `(B, X, M)` through basis `(X, channels, M)`: pixels `(B, X, channels)`."""
        return torch.einsum("bqm,qhm->bqh", modulations, basis)

    def project(self, residual: Tensor, basis: Tensor) -> Tensor:
        """Adjoint of spreading and `differentiate`: residual `(B, X, channels)` → cells `(B, *grid, M)`.

        In parts of the batch: M numbers for each pixel of all images are far more than the images and their latents.
        """
        images = max(1, _FLOATS_AT_ONCE // (len(basis) * basis.shape[-1]))
        parts = residual.split(images)
        return torch.cat([self.gather(torch.einsum("bqh,qhm->bqm", part, basis)) for part in parts])


Geometry = NearestGeometry | LinearGeometry
GEOMETRIES: dict[Interpolation, type[NearestGeometry] | type[LinearGeometry]] = {
    "nearest": NearestGeometry,
    "linear": LinearGeometry,
}
