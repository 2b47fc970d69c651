"""`classification`: the classifier on latents."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from spatial_functa_pipeline.config.block import Block, NetworkPrecision, Share
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.config.transformer import TransformerSizes
from spatial_functa_pipeline.fields.latent_shape import LatentShape

ClassifierArchitecture = Literal["transformer", "mlp"]


class TransformerConfig(TransformerSizes):
    """Pre-LN Transformer over the latent cells (App. C, Tab. 5)."""

    pooling: Literal["mean", "concatenate"] = Field(
        "mean", description="how the last block's tokens become one vector; concatenate learns faster from few images"
    )


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
