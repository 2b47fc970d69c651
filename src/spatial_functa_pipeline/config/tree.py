"""The whole tree of parameters, and the conditions that bind one block to another."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.block import Block, LatentShapeText
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import EvaluationConfig
from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig
from spatial_functa_pipeline.config.meta_learning import MOST_TO_START_FROM, MetaLearningConfig
from spatial_functa_pipeline.config.normalization_stats import NormalizationStatsConfig
from spatial_functa_pipeline.config.quantisation import QuantisationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.geometry import Interpolation

EncoderKind = Literal["field", "pca", "pixels", "autoencoder"]


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name, re.ASCII):
        raise ValueError("a data set's name is made of letters, digits, _, - and single dots, since it names a folder")
    return name


class PipelineParameters(Block):
    """All of `parameters*.yml`, with the conditions that bind one block to another."""

    recipe: Literal["ours", "as_printed"] = Field(
        "ours",
        description="as_printed: what the paper prints, with nothing of ours; in data sets that have rows for it",
    )
    dataset: Annotated[str, AfterValidator(_plain_name)] = Field(description="names the folder of a run's files")
    latent_shape: LatentShapeText
    interpolation: Interpolation
    encoder: EncoderKind = Field(
        "field",
        description="what makes the latents: the field, or what it is compared with, the principal components of a cell's "
        "pixels, the pixels themselves, or an autoencoder",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data_path: str = Field(description="where the images are")
    runtime: RuntimeConfig = RuntimeConfig()
    data: DataConfig
    meta_learning: MetaLearningConfig
    autoencoder: AutoencoderConfig | None = Field(None, description="needed by encoder autoencoder only")
    functaset: FunctasetConfig
    quantisation: QuantisationConfig = QuantisationConfig()
    normalization_stats: NormalizationStatsConfig = NormalizationStatsConfig()
    classification: ClassificationConfig
    diffusion: DiffusionConfig
    evaluation: EvaluationConfig

    @model_validator(mode="before")
    @classmethod
    def _field_is_of_this_variant_and_data(cls, tree: Any) -> Any:
        """What the field shares with the rest is said once: it need not stand in the field's own block."""
        match tree:
            case {"data": dict() as data, "meta_learning": {"field": dict() as field} as block}:
                places = {"latent_shape": tree, "interpolation": tree, "resolution": data, "channels": data}
                shared = {name: place[name] for name, place in places.items() if name in place}
                return {**tree, "meta_learning": {**block, "field": shared | field}}
        return tree

    @model_validator(mode="after")
    def _field_is_the_variant(self) -> PipelineParameters:
        field, data = self.meta_learning.field, self.data
        for name, here, there in (
            ("latent_shape", field.latent_shape, self.latent_shape),
            ("interpolation", field.interpolation, self.interpolation),
            ("resolution", field.resolution, data.resolution),
            ("channels", field.channels, data.channels),
        ):
            if here != there:
                where = name if name in type(self).model_fields else f"data.{name}"
                raise ValueError(f"meta_learning.field.{name} is {here}, but {where} is {there}: set {where} instead")
        return self

    @model_validator(mode="after")
    def _encoder_can_have_the_variant(self) -> PipelineParameters:
        if self.encoder != "field" and self.interpolation != "nearest":
            raise ValueError(
                f"interpolation is {self.interpolation}, which is a field's, but encoder is {self.encoder}: set it to nearest"
            )
        if self.encoder != "field" and self.latent_shape.coarser:
            raise ValueError(
                f"latent_shape {self.latent_shape} has several scales, which are a field's, but encoder is {self.encoder}: "
                f"choose one grid, such as {self.latent_shape.scales[-1]}"
            )
        numbers, codes = self.meta_learning.field.spec.cell_numbers, self.latent_shape.channels
        grid = "x".join(map(str, self.latent_shape.grid))
        match self.encoder:
            case "pixels" if codes != numbers:
                raise ValueError(
                    f"encoder is pixels, of which a cell of latent_shape {self.latent_shape} has {numbers}: "
                    f"set latent_shape to {grid}x{numbers}"
                )
            case "pca" if codes > numbers:
                raise ValueError(
                    f"encoder is pca, but a cell of latent_shape {self.latent_shape} has only {numbers} numbers: "
                    f"{grid}x{numbers} is the largest latent_shape of this grid"
                )
            case "pca" | "pixels" if numbers > MOST_TO_START_FROM:
                raise ValueError(
                    f"encoder is {self.encoder}, but a cell of latent_shape {self.latent_shape} has {numbers} numbers, and at "
                    f"most {MOST_TO_START_FROM} are supported: choose a finer grid"
                )
            case "autoencoder":
                self._require_autoencoder().multipliers_of_levels(self.latent_shape, self.data.resolution)
        return self

    def _require_autoencoder(self) -> AutoencoderConfig:
        if self.autoencoder is None:
            raise ValueError(
                "encoder is autoencoder, but the block autoencoder is not given: this data set has no sizes for one"
            )
        return self.autoencoder

    @model_validator(mode="after")
    def _guidance_has_what_it_needs(self) -> PipelineParameters:
        sampling, diffusion = self.evaluation.sampling, self.diffusion
        scale = sampling.guidance_scale
        if scale is None or (scale == 1 and sampling.guidance == "autoguidance"):
            return self
        if sampling.guidance == "autoguidance":
            if diffusion.autoguidance is None:
                raise ValueError(
                    "evaluation.sampling.guidance is autoguidance, but diffusion.autoguidance is null, so that no guide is "
                    "kept: set it to a share of the training, as 0.25, or guidance to classifier_free"
                )
            return self
        if not diffusion.conditional:
            raise ValueError(
                f"evaluation.sampling.guidance_scale is {scale}, but diffusion.conditional is false: "
                "guidance needs a conditional model; set the scale to null"
            )
        if scale != 1 and diffusion.dummy_label_share == 0:
            raise ValueError(
                f"evaluation.sampling.guidance_scale is {scale}, but diffusion.dummy_label_share is 0: the model never "
                "learns the unconditional distribution; set a share above 0, or the scale to null"
            )
        return self

    @model_validator(mode="after")
    def _reference_holds_no_test_images(self) -> PipelineParameters:
        if self.recipe == "as_printed" and self.evaluation.scores.held_out_in_reference:
            raise ValueError(
                "evaluation.scores.held_out_in_reference is true, but recipe is as_printed, which validates on the test "
                "images: set it to false"
            )
        return self

    @model_validator(mode="after")
    def _sampler_fits_the_process(self) -> PipelineParameters:
        self.evaluation.sampling.require_process(self.diffusion)
        return self

    @model_validator(mode="after")
    def _denoiser_fits_the_grid(self) -> PipelineParameters:
        if self.diffusion.architecture_on(self.latent_shape) == "unet":
            self.diffusion.unet.levels_with_attention(self.latent_shape)
        return self

    @model_validator(mode="after")
    def _rotation_fits_the_latent(self) -> PipelineParameters:
        self.normalization_stats.require_cells(self.latent_shape)
        self.normalization_stats.require_room_for_matrix(self.latent_shape)
        return self

    @model_validator(mode="after")
    def _vector_is_cut_into_equal_tokens(self) -> PipelineParameters:
        classification, diffusion, shape = self.classification, self.diffusion, self.latent_shape
        if classification.architecture_on(shape) == "transformer":
            classification.transformer.require_equal_tokens(shape, "classification.transformer")
        if diffusion.dit is not None and diffusion.architecture_on(shape) == "dit":
            diffusion.dit.require_equal_tokens(shape, "diffusion.dit")
        return self

    @model_validator(mode="after")
    def _batches_divide_among_the_processes(self) -> PipelineParameters:
        ranks = self.runtime.ranks
        for name in ("meta_learning", "autoencoder", "classification", "diffusion"):
            block = getattr(self, name)
            size = ranks if block is None else block.training.batch_size
            if size % ranks:
                raise ValueError(
                    f"{name}.training.batch_size ({size}) must be divisible by the number of processes, "
                    f"runtime.processes × runtime.machines = {ranks}"
                )
        return self

    @model_validator(mode="after")
    def _mixup_finds_pairs(self) -> PipelineParameters:
        training, ranks = self.classification.training, self.runtime.ranks
        if self.classification.mixup is None:
            return self
        for name, size, multiple in (
            ("batch_size", training.batch_size, 2 * ranks),
            ("micro_batch", training.micro_batch, 2),
        ):
            if size != "auto" and size % multiple:
                raise ValueError(
                    f"classification.mixup is {self.classification.mixup}, which mixes rows in pairs: "
                    f"classification.training.{name} ({size}) must be a multiple of {multiple}"
                    + (f", as there are {ranks} processes" if multiple > 2 else "")
                )
        return self

    @model_validator(mode="after")
    def _what_is_to_be_best_has_a_metric(self) -> PipelineParameters:
        for name, training in (
            ("diffusion.training", self.diffusion.training),
            ("evaluation.frechet.feature_network", self.evaluation.frechet.feature_network),
        ):
            if training.guard and training.guard.margin is not None:
                raise ValueError(
                    f"{name}.guard.margin is {training.guard.margin}, but this training has no validation metric that "
                    "it keeps the best of: set it to null"
                )
            if training.keep == "best":
                raise ValueError(
                    f"{name}.keep is best, but this training has no validation metric to be best in: set it to last"
                )
        return self

    @model_validator(mode="after")
    def _mirror_images_are_made(self) -> PipelineParameters:
        if self.diffusion.mirror_images and not self.functaset.mirror_images:
            raise ValueError(
                "diffusion.mirror_images is true, but functaset.mirror_images is false: the functaset would have no mirrored "
                "images; set both, or none"
            )
        return self

    @model_validator(mode="after")
    def _flipped_test_images_are_made(self) -> PipelineParameters:
        if self.classification.test_time_flips and not self.functaset.mirror_held_out:
            raise ValueError(
                "classification.test_time_flips is true, but functaset.mirror_held_out is not: the validation and test "
                "functasets would have no mirrored images; set both to true, or none"
            )
        return self

    @model_validator(mode="after")
    def _copies_to_train_on_are_made(self) -> PipelineParameters:
        if self.diffusion.augmented_copies and not self.functaset.augmented_copies:
            raise ValueError(
                "diffusion.augmented_copies is true, but functaset.augmented_copies is 0: the functaset would have no "
                "augmented copies to train on; ask for some, or set the former to false"
            )
        return self

    @model_validator(mode="after")
    def _cells_can_be_merged(self) -> PipelineParameters:
        config = self.classification
        if config.architecture_on(self.latent_shape) == "convnext" and config.convnext is not None:
            config.convnext.require_fitting(self.latent_shape)
        return self

    @model_validator(mode="after")
    def _crop_needs_an_image(self) -> PipelineParameters:
        augmentation = self.functaset.augmentation
        if len(self.data.resolution) != 2 and self.functaset.mirror_images:
            raise ValueError("functaset.mirror_images is for images: set it to false for data of another dimension")
        if len(self.data.resolution) != 2 and self.functaset.mirror_held_out:
            raise ValueError("functaset.mirror_held_out is for images: set it to null for data of another dimension")
        if (
            len(self.data.resolution) != 2
            and self.functaset.augmented_copies
            and augmentation != AugmentationConfig(flip=False, crop_padding=0)
        ):
            raise ValueError(
                "functaset.augmentation is for images: set augmented_copies to 0 for data of another dimension"
            )
        return self
