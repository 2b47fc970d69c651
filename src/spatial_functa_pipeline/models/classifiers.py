"""Classifiers on normalised latents, or patches of pixels (App. B.1, C).

A Transformer over the cells, and a residual MLP for vector functa.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`, or of several scales, `(B, numbers)`; S tokens of W
numbers, the model's width; K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.scale_tokens import ScaleEmbedding


class TransformerBlock(nn.Module):
    """Pre-LN block: self-attention, then a GELU feed-forward layer, each added to its input.

    The attention's inner width is `heads * head_dim`, whatever the block's width: 16 heads of 24 inside a width of 768
    is what gives the paper's 64M parameters, and `torch.nn.MultiheadAttention` cannot express it.
    """

    def __init__(self, width: int, ffw_width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.project = nn.Linear(heads * head_dim, width)
        self.ffw_norm = nn.LayerNorm(width)
        self.ffw = nn.Sequential(nn.Linear(width, ffw_width), nn.GELU(), nn.Linear(ffw_width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, S, W)` -> `(B, S, W)`."""
        tokens = tokens + self._attention(self.attention_norm(tokens))
        return tokens + self.ffw(self.ffw_norm(tokens))

    def _attention(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, S, 3, heads, head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, S, head_dim)
        if qkv.device.type == "cpu":
            # torch's attention in bfloat16 takes a CPU six times as long as in float32.
            with torch.autocast("cpu", enabled=False):
                mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).flatten(2))  # (B, S, W)


class LatentTransformer(nn.Module):
    """Vanilla pre-LN Transformer, one token per latent cell, learned absolute positions (App. C, Tab. 5).

    A vector functa (s = 1) is cut into `vector_tokens` equal tokens: attention over a single one would do nothing. The
    paper does not say how its Transformer (App. B.1) reads a vector. Of several scales (ours) each cell of each grid is one.

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
        self.embed: nn.Linear | ScaleEmbedding
        if latent_shape.coarser:
            self.tokens = ScaleEmbedding.tokens(latent_shape)
            self.embed = ScaleEmbedding(latent_shape, width)
        else:
            self.tokens = vector_tokens if latent_shape.cells == 1 else latent_shape.cells
            if latent_shape.numbers % self.tokens:
                raise ValueError(f"{latent_shape} latents cannot be cut into {self.tokens} equal tokens")
            self.embed = nn.Linear(latent_shape.numbers // self.tokens, width)
        self.positions = nn.Parameter(torch.empty(self.tokens, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, ffw_width, heads, head_dim) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pooling = pooling
        self.head = nn.Linear(width * (self.tokens if pooling == "concatenate" else 1), num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, latents: Tensor) -> Tensor:
        """Normalised latents `(B, *grid, c)` -> logits `(B, K)`."""
        if isinstance(self.embed, nn.Linear):
            latents = latents.flatten(1).unflatten(1, (self.tokens, -1))
        tokens = self.embed(latents) + self.positions  # (B, S, W)
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
