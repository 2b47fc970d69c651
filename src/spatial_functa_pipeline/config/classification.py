"""`classification`: the classifier on latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, NetworkPrecision, Share, Switch
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.training import MuonRate, TrainingConfig
from spatial_functa_pipeline.config.transformer import TransformerSizes
from spatial_functa_pipeline.fields.latent_shape import LatentShape

ClassifierArchitecture = Literal["transformer", "mlp", "convnext"]


class TransformerConfig(TransformerSizes):
    """Pre-LN Transformer over the latent cells (App. C, Tab. 5)."""

    pooling: Literal["mean", "concatenate"] = Field(
        "mean", description="how the last block's tokens become one vector; concatenate learns faster from few images"
    )


class ConvNeXtConfig(Block):
    """ConvNeXt on the grid of latents (after Liu et al., 2022)."""

    width: PositiveInt
    blocks: PositiveInt
    downsampled_blocks: Annotated[int, Field(ge=0)] = Field(
        0, description="blocks of twice the width that follow where the grid's sides are halved; 0: they are not"
    )
    kernel_size: PositiveInt = Field(3, description="cells along each axis of the depthwise convolutions; odd")
    expansion: PositiveInt = Field(4, description="width of a block's hidden layer, in widths of the block")

    @model_validator(mode="after")
    def _kernel_has_a_centre(self) -> ConvNeXtConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size ({self.kernel_size}) must be odd")
        return self

    def require_fitting(self, latent_shape: LatentShape) -> None:
        """Raises ValueError for a grid of four dimensions or more, or if sides are to be halved that are odd."""
        if len(latent_shape.grid) > 3:
            raise ValueError(
                f"classification.architecture convnext needs a grid of at most three dimensions, not {latent_shape}: choose "
                "transformer or mlp"
            )
        if self.downsampled_blocks and any(side % 2 for side in latent_shape.grid):
            raise ValueError(
                f"classification.convnext.downsampled_blocks is {self.downsampled_blocks}, for which the sides of a grid are "
                f"halved, but latent_shape {latent_shape} has an odd one: set it to 0, or "
                "classification.architecture to transformer or mlp"
            )


class ClassificationConfig(Block):
    """Classifier on latents (App. B.1, C; Tab. 5)."""

    preset: Literal["vit_b"] | None = Field(
        None,
        description="a size and a training that the data set's rows of presets give. vit_b: ViT-B, which Tab. 3 compares with; "
        "null: the data set's own",
    )
    architecture: Literal["auto", ClassifierArchitecture] = Field(
        "auto", description="auto: mlp if s = 1, else convnext where its sizes are given, else transformer"
    )
    transformer: TransformerConfig
    mlp: MLPConfig
    convnext: ConvNeXtConfig | None = Field(None, description="needed by architecture convnext; see architecture")
    dropout: Share = 0.1
    drop_path: Share | None = Field(
        None,
        description="share of a batch's rows in which the last block's residual branches are left out in training; it rises "
        "linearly from block to block (Huang et al., 2016); null: none, as the paper",
    )
    label_smoothing: Share = 0.1
    mixup: PositiveFloat | None = Field(
        None,
        description="α of MixUp's Beta(α, α) (Zhang et al., 2018); null: none, as the paper (Sec. 5.2, footnote 2)",
    )
    test_time_flips: Switch = Field(
        None,
        description="true: accuracies are of the mean of the probabilities that an image and its mirror image get, which "
        "functaset.mirror_held_out makes; null: of the image alone",
    )
    normalisation_scale: PositiveFloat | None = Field(
        None,
        description="latents are divided by it; null: the training set's scalar standard deviation",
    )
    precision: NetworkPrecision = Field(
        "float32", description="of the products in training, where the device has them; accuracies are float32's"
    )
    muon_learning_rate: MuonRate = None
    training: TrainingConfig

    @model_validator(mode="after")
    def _convnext_has_its_sizes(self) -> ClassificationConfig:
        if self.architecture == "convnext" and self.convnext is None:
            raise ValueError(
                "architecture is convnext, but the block convnext is not given: this data set has no sizes for one; give "
                "width and blocks"
            )
        return self

    def architecture_on(self, latent_shape: LatentShape) -> ClassifierArchitecture:
        """The one that is meant: `auto` is the MLP for vector functa (s = 1), which have no grid to work on.

        On a grid it is the paper's Transformer, unless the sizes of a ConvNeXt are given.
        """
        if self.architecture != "auto":
            return self.architecture
        if latent_shape.cells == 1:
            return "mlp"
        return "transformer" if self.convnext is None else "convnext"
