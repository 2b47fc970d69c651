"""Classifiers on normalised latents, or patches of pixels (App. B.1, C).

A Transformer over the cells, a ConvNeXt on their grid, and a residual MLP for vector functa.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`, or of several scales, `(B, numbers)`; S tokens of W
numbers, the model's width; K classes.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import to_cells
from spatial_functa_pipeline.models.drop_path import DropPath, drop_shares
from spatial_functa_pipeline.models.transformer import Tokens, TransformerBlock, initialise_linears


class Classifier(nn.Module):
    """Maps normalised latents `(B, *grid, c)` to logits `(B, K)`."""

    ENDS: ClassVar[tuple[str, ...]] = ("embed", "stem", "head")
    """How the names of its first and last layers start, which are no hidden ones."""


class LatentTransformer(Classifier):
    """Vanilla pre-LN Transformer, one token per latent cell, learned absolute positions (App. C, Tab. 5).

    A vector functa (s = 1) is cut into `vector_tokens` equal tokens, and several scales into their cells: see `Tokens`.

    The paper does not say how the tokens become one vector. Here, after the final LayerNorm, they are averaged, which
    needs no class token and treats all cells alike; or, with `pooling="concatenate"`, laid end to end, so that the last
    layer tells the cells apart: cheap for few classes, and quicker to learn. Dropout acts once, on that vector (App. C).
    """

    def __init__(
        self,
        latent_shape: LatentShape,
        num_classes: int,
        *,
        width: int,
        ffw_width: int,
        blocks: int,
        heads: int,
        head_dim: int,
        dropout: float,
        drop_path: float,
        pooling: Literal["mean", "concatenate"],
        vector_tokens: int,
    ) -> None:
        super().__init__()
        self.tokens = Tokens.of(latent_shape, vector_tokens)
        self.embed = self.tokens.embedding(width)
        self.positions = nn.Parameter(torch.empty(self.tokens.count, width))
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(width, ffw_width, heads, head_dim, drop_path=share)
                for share in drop_shares(drop_path, blocks)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling
        self.head = nn.Linear(width * (self.tokens.count if pooling == "concatenate" else 1), num_classes)
        initialise_linears(self)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, *grid, c)` -> logits `(B, K)`."""
        tokens = self.embed(self.tokens.cut(latents)) + self.positions  # (B, S, W)
        tokens = self.norm(self.blocks(tokens))
        features = tokens.mean(dim=1) if self.pooling == "mean" else tokens.flatten(1)  # (B, W) or (B, S·W)
        return self.head(self.dropout(features))


class ResidualMLPClassifier(Classifier):
    """Residual SiLU MLP on the flattened latent (App. B.1), dropout once, before the last layer.

    The paper's text fixes activation, width and depth; the LayerNorm before each activation is this project's choice,
    for the same reason as in the Transformer: deep residual stacks train without a tuned warm-up.
    """

    def __init__(
        self,
        latent_shape: LatentShape,
        num_classes: int,
        *,
        width: int,
        blocks: int,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(latent_shape.numbers, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.drop_paths = nn.ModuleList(map(DropPath, drop_shares(drop_path, blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, *grid, c)` -> logits `(B, K)`."""
        hidden = self.embed(latents.flatten(1))  # (B, W)
        for block, drop_path in zip(self.blocks, self.drop_paths, strict=True):
            hidden = hidden + drop_path(block(hidden))
        return self.head(hidden)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, GELU layer on each cell and a scale for each channel; added to its input.

    On an image's grid that is the block of ConvNeXt (Liu et al., 2022). Their scales start at 1e-6, for networks far deeper
    than those on a latent's grid, whose start at 1.
    """

    def __init__(self, width: int, kernel_size: int, expansion: int, dimensions: int, drop_path: float) -> None:
        super().__init__()
        self.mix_cells = _convolution(dimensions)(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.ffw = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))
        self.scale = nn.Parameter(torch.ones(width))
        self.drop_path = DropPath(drop_path)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(B, *grid, W)` -> `(B, *grid, W)`."""
        mixed = self.mix_cells(hidden.movedim(-1, 1)).movedim(1, -1)  # channels stay last in memory, which is faster
        return hidden + self.drop_path(self.scale * self.ffw(self.norm(mixed)))


class LatentConvNeXt(Classifier):
    """ConvNeXt on the grid of latents, of one to three dimensions (after Liu et al., 2022).

    A linear stem for each cell, blocks, the mean over all cells, LayerNorm, dropout once, and the last layer. With
    `downsampled_blocks`, neighbouring cells are merged, two along each axis, into cells of twice the width, and so many
    blocks follow. Of several scales, each cell of the finest grid has the numbers of all the cells that it lies in.
    """

    def __init__(
        self,
        latent_shape: LatentShape,
        num_classes: int,
        *,
        width: int,
        blocks: int,
        downsampled_blocks: int,
        kernel_size: int,
        expansion: int,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.latent_shape, dimensions = latent_shape, len(latent_shape.grid)
        shares = drop_shares(drop_path, blocks + downsampled_blocks)

        def stage(width: int, shares: list[float]) -> nn.Sequential:
            return nn.Sequential(*(ConvNeXtBlock(width, kernel_size, expansion, dimensions, share) for share in shares))

        self.stem = nn.Sequential(nn.Linear(latent_shape.channels, width), nn.LayerNorm(width))
        self.blocks = stage(width, shares[:blocks])
        self.merge: nn.Module = nn.Identity()
        self.downsampled_blocks = stage(2 * width, shares[blocks:])
        if downsampled_blocks:
            self.merge = MergeCells(width, dimensions)
            width *= 2
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, *grid, c)` -> logits `(B, K)`."""
        hidden = self.blocks(self.stem(to_cells(latents, self.latent_shape)))  # (B, *grid, W)
        hidden = self.downsampled_blocks(self.merge(hidden))  # half as many cells along each axis, 2W
        return self.head(hidden.flatten(1, -2).mean(dim=1))


class MergeCells(nn.Module):
    """LayerNorm, then a convolution of kernel 2 and stride 2 to twice the width, as between the stages of ConvNeXt."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.merge = _convolution(dimensions)(width, 2 * width, 2, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(B, *grid, W)` -> `(B, *grid / 2, 2W)`."""
        merged: Tensor = self.merge(self.norm(hidden).movedim(-1, 1))
        return merged.movedim(1, -1)


def _convolution(dimensions: int) -> type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]


def build_classifier(config: ClassificationConfig, latent_shape: LatentShape, num_classes: int) -> Classifier:
    """Build the classifier that `config` asks for; its `forward` maps `(B, *grid, c)` to logits `(B, K)`.

    `architecture: auto` takes the MLP for vector functa (s = 1), else the ConvNeXt where its sizes are given, else the
    Transformer. An MLP asked for on a larger grid sees the latent flattened.
    """
    regularisation: dict[str, Any] = {"dropout": config.dropout, "drop_path": config.drop_path or 0.0}
    match config.architecture_on(latent_shape):
        case "mlp":
            return ResidualMLPClassifier(
                latent_shape, num_classes, width=config.mlp.width, blocks=config.mlp.blocks, **regularisation
            )
        case "convnext":
            convnext = config.convnext
            assert convnext is not None  # the configuration has checked it
            return LatentConvNeXt(latent_shape, num_classes, **convnext.model_dump(), **regularisation)
        case "transformer":
            transformer = config.transformer
            return LatentTransformer(
                latent_shape,
                num_classes,
                width=transformer.width,
                ffw_width=transformer.ffw_width,
                blocks=transformer.blocks,
                heads=transformer.heads,
                head_dim=transformer.head_dim or transformer.width // transformer.heads,
                pooling=transformer.pooling,
                vector_tokens=transformer.vector_tokens,
                **regularisation,
            )
