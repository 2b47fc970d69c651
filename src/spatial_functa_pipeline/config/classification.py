"""`classification`: the classifier on latents."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, NetworkPrecision, Share
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape

ClassifierArchitecture = Literal["transformer", "mlp"]


class TransformerConfig(Block):
    """Pre-LN Transformer over the latent cells (App. C, Tab. 5)."""

    width: PositiveInt
    ffw_width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt | None = Field(None, description="null: width / heads")
    pooling: Literal["mean", "concatenate"] = Field(
        "mean", description="how the last block's tokens become one vector; concatenate learns faster from few images"
    )
    vector_tokens: PositiveInt = Field(
        16, description="vector functa (s = 1): the vector is cut into so many equal tokens; must divide its length"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerConfig:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) unless head_dim is given")
        return self


class ClassificationConfig(Block):
    """Classifier on latents (App. B.1, C; Tab. 5)."""

    preset: Literal["vit_b"] | None = Field(
        None,
        description="a size and a training that the data set's rows of presets give. vit_b: ViT-B, which Tab. 3 compares with; "
        "null: the data set's own",
    )
    architecture: Literal["auto", ClassifierArchitecture] = Field("auto", description="auto: mlp if s = 1")
    transformer: TransformerConfig
    mlp: MLPConfig
    dropout: Share = 0.1
    label_smoothing: Share = 0.1
    mixup: PositiveFloat | None = Field(
        None,
        description="α of MixUp's Beta(α, α) (Zhang et al., 2018); null: none, as the paper (Sec. 5.2, footnote 2)",
    )
    normalisation_scale: PositiveFloat | None = Field(
        None,
        description="latents are divided by it; null: the training set's scalar standard deviation",
    )
    precision: NetworkPrecision = Field(
        "float32", description="of the products in training, where the device has them; accuracies are float32's"
    )
    training: TrainingConfig

    def architecture_on(self, latent_shape: LatentShape) -> ClassifierArchitecture:
        """The one that is meant: `auto` is the MLP for vector functa (s = 1), which have no grid to work on."""
        if self.architecture != "auto":
            return self.architecture
        return "mlp" if latent_shape.cells == 1 else "transformer"
