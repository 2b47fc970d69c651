"""The Transformer of the classifier and of the denoiser: its tokens and its block.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`; S tokens of W numbers, the model's width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.drop_path import DropPath


@dataclass(frozen=True)
class Tokens:
    """How a latent is cut: one token per cell of its grid, of any dimension; of several scales, per cell of each grid.

    A vector functa (s = 1) is cut into equal tokens: attention over a single one would do nothing. The paper does not say
    how its Transformer (App. B.1) reads a vector.

    Attributes:
        counts: of tokens, of each scale; S is their sum.
        numbers: of a latent in each token of each scale.
    """

    counts: tuple[int, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, latent_shape: LatentShape, vector_tokens: int) -> Self:
        """Raises ValueError if a vector cannot be cut into `vector_tokens` equal tokens."""
        if latent_shape.cells > 1:
            scales = latent_shape.scales
            return cls(tuple(scale.cells for scale in scales), tuple(scale.channels for scale in scales))
        if latent_shape.numbers % vector_tokens:
            raise ValueError(f"{latent_shape} latents cannot be cut into {vector_tokens} equal tokens")
        return cls((vector_tokens,), (latent_shape.numbers // vector_tokens,))

    @property
    def count(self) -> int:
        """S."""
        return sum(self.counts)

    def cut(self, latents: Tensor) -> Tensor:
        """`(B, *grid, c)` -> `(B, S, numbers)`, a reshape is the way back; latents of several scales are left as they are."""
        return latents if len(self.counts) > 1 else latents.flatten(1).unflatten(1, (*self.counts, *self.numbers))

    def embedding(self, width: int) -> nn.Module:
        """From what `cut` gives to `(B, S, width)`: linear, and each scale's own."""
        return nn.Linear(self.numbers[0], width) if len(self.counts) == 1 else ScaleEmbedding(self, width)

    def output(self, width: int) -> nn.Module:
        """Back from `(B, S, width)` to numbers in the order of the latents."""
        return nn.Linear(width, self.numbers[0]) if len(self.counts) == 1 else ScaleOutput(self, width)


class ScaleEmbedding(nn.ModuleList):
    """Latents of several scales `(B, numbers)` -> tokens `(B, S, W)`, the coarsest cells first."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__(nn.Linear(numbers, width) for numbers in tokens.numbers)
        self.tokens = tokens

    def forward(self, latents: Tensor) -> Tensor:
        """See above."""
        sizes = [count * numbers for count, numbers in zip(self.tokens.counts, self.tokens.numbers, strict=True)]
        parts = zip(self, latents.split(sizes, dim=1), self.tokens.counts, strict=True)
        return torch.cat([embed(part.unflatten(1, (count, -1))) for embed, part, count in parts], dim=1)


class ScaleOutput(nn.ModuleList):
    """Tokens `(B, S, W)` -> latents of several scales `(B, numbers)`."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__(nn.Linear(width, numbers) for numbers in tokens.numbers)
        self.tokens = tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """See above."""
        parts = zip(self, tokens.split(self.tokens.counts, dim=1), strict=True)
        return torch.cat([layer(part).flatten(1) for layer, part in parts], dim=1)


class AdaptiveLayerNorm(nn.LayerNorm):
    """LayerNorm whose scale and shift follow from a condition (adaLN-Zero; Peebles & Xie, 2023), and gates if it has some.

    It starts as a LayerNorm without scale and shift, and with gates of zero: see `initialise_linears`.
    """

    def __init__(self, width: int, *, gates: int) -> None:
        super().__init__(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, (2 + gates) * width)

    def modulated(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        """Tokens `(B, S, W)` and condition `(B, W)` -> normalised tokens `(B, S, W)` and each gate `(B, 1, W)`."""
        numbers = self.modulation(condition).unflatten(1, (-1, 1, tokens.shape[-1]))  # (B, 2 + gates, 1, W)
        shift, scale, *gates = numbers.unbind(1)
        return self(tokens) * (1 + scale.float()) + shift, *gates  # 1 + scale in bfloat16 would round to steps of 1/128


class TransformerBlock(nn.Module):
    """Pre-LN block: self-attention, then a GELU feed-forward layer, each added to its input.

    The attention's inner width is `heads * head_dim`, whatever the block's width: 16 heads of 24 inside a width of 768
    is what gives the paper's 64M parameters, and `torch.nn.MultiheadAttention` cannot express it.
    """

    def __init__(
        self,
        width: int,
        ffw_width: int,
        heads: int,
        head_dim: int,
        *,
        conditioned: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        """A `conditioned` block has AdaptiveLayerNorm; dropout and drop path are at the end of each residual branch."""
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = _norm(width, conditioned)
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.project = nn.Linear(heads * head_dim, width)
        self.ffw_norm = _norm(width, conditioned)
        self.ffw = nn.Sequential(nn.Linear(width, ffw_width), nn.GELU(), nn.Linear(ffw_width, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """`(B, S, W)`, and for a conditioned block `(B, W)`, -> `(B, S, W)`."""
        tokens = tokens + self.drop_path(self._branch(self._attention, self.attention_norm, tokens, condition))
        return tokens + self.drop_path(self._branch(self.ffw, self.ffw_norm, tokens, condition))

    def _branch(
        self, layers: Callable[[Tensor], Tensor], norm: nn.LayerNorm, tokens: Tensor, condition: Tensor | None
    ) -> Tensor:
        """What is added to the tokens."""
        if not isinstance(norm, AdaptiveLayerNorm):
            return F.dropout(layers(norm(tokens)), self.dropout, self.training)
        assert condition is not None, "a conditioned block needs a condition"
        normalised, gate = norm.modulated(tokens, condition)
        return gate * F.dropout(layers(normalised), self.dropout, self.training)

    def _attention(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, S, 3, heads, head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, S, head_dim)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).flatten(2))  # (B, S, W)


def _norm(width: int, conditioned: bool) -> nn.LayerNorm:
    return AdaptiveLayerNorm(width, gates=1) if conditioned else nn.LayerNorm(width)


def initialise_linears(model: nn.Module) -> None:
    """All linear layers: weights as Xavier, biases zero; those of an AdaptiveLayerNorm all zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, AdaptiveLayerNorm):
            nn.init.zeros_(module.modulation.weight)
