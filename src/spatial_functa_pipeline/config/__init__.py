"""The parameters: their names, bounds and defaults, one file per block of `parameters.yml`; `tree` is the whole."""

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.block import RESULT_NEUTRAL, Block
from spatial_functa_pipeline.config.classification import ClassificationConfig, TransformerConfig
from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, NormalisationConfig, UNetConfig
from spatial_functa_pipeline.config.evaluation import (
    SAMPLING_PRESETS,
    EvaluationConfig,
    FrechetConfig,
    MemorisationConfig,
    SamplingConfig,
    ScoresConfig,
)
from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig, StorageType
from spatial_functa_pipeline.config.meta_learning import FieldConfig, MetaLearningConfig, SpectralPenaltyConfig
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.normalization_stats import NormalizationStatsConfig
from spatial_functa_pipeline.config.presets import Preset, apply_presets
from spatial_functa_pipeline.config.quantisation import QuantisationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import GuardConfig, TrainingConfig
from spatial_functa_pipeline.config.tree import PipelineParameters

__all__ = [
    "RESULT_NEUTRAL",
    "SAMPLING_PRESETS",
    "AugmentationConfig",
    "AutoencoderConfig",
    "Block",
    "ClassificationConfig",
    "DataConfig",
    "DenoiserMLPConfig",
    "DiffusionConfig",
    "EvaluationConfig",
    "FieldConfig",
    "FrechetConfig",
    "FunctasetConfig",
    "GuardConfig",
    "MLPConfig",
    "MemorisationConfig",
    "MetaLearningConfig",
    "NormalisationConfig",
    "NormalizationStatsConfig",
    "PipelineParameters",
    "Preset",
    "QuantisationConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "ScoresConfig",
    "SpectralPenaltyConfig",
    "StorageType",
    "TrainingConfig",
    "TransformerConfig",
    "UNetConfig",
    "apply_presets",
]
