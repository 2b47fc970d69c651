"""Classifiers on normalised latents, or patches of pixels (App. B.1, C).

A Transformer over the cells, and a residual MLP for vector functa.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`, or of several scales, `(B, numbers)`; S tokens of W
numbers, the model's width; K classes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.transformer import Tokens, TransformerBlock, initialise_linears


class LatentTransformer(nn.Module):
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
        pooling: Literal["mean", "concatenate"],
        vector_tokens: int,
    ) -> None:
        super().__init__()
        self.tokens = Tokens.of(latent_shape, vector_tokens)
        self.embed = self.tokens.embedding(width)
        self.positions = nn.Parameter(torch.empty(self.tokens.count, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, ffw_width, heads, head_dim) for _ in range(blocks)))
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


class ResidualMLPClassifier(nn.Module):
    """Residual SiLU MLP on the flattened latent (App. B.1), dropout once, before the last layer.

    The paper's text fixes activation, width and depth; the LayerNorm before each activation is this project's choice,
    for the same reason as in the Transformer: deep residual stacks train without a tuned warm-up.
    """

    def __init__(self, latent_shape: LatentShape, num_classes: int, *, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(latent_shape.numbers, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, *grid, c)` -> logits `(B, K)`."""
        hidden = self.embed(latents.flatten(1))  # (B, W)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


def build_classifier(config: ClassificationConfig, latent_shape: LatentShape, num_classes: int) -> nn.Module:
    """Build the classifier that `config` asks for; its `forward` maps `(B, *grid, c)` to logits `(B, K)`.

    `architecture: auto` takes the MLP for vector functa (s = 1) and the Transformer otherwise; an MLP asked for on a
    larger grid sees the latent flattened.
    """
    match config.architecture_on(latent_shape):
        case "mlp":
            mlp = config.mlp
            return ResidualMLPClassifier(
                latent_shape, num_classes, width=mlp.width, blocks=mlp.blocks, dropout=config.dropout
            )
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
                dropout=config.dropout,
                pooling=transformer.pooling,
                vector_tokens=transformer.vector_tokens,
            )
