"""What each option changes: every key of the parameters, another value of it, and the outputs that are then different.

The outputs are those of the nodes that are given the key, on inputs that are as they were; what follows from them further
on is the flow's, and no matter of a table. `test_every_option.py` holds the table against all pipelines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE: dict[str, Any] = {
    "dataset": "tiny",
    "latent_shape": "2x2x4",
    "interpolation": "nearest",
    "seed": 0,
    "data_path": "nowhere",
    "runtime": {"device": "cpu", "progress": False, "compile": "off"},
    "data": {"resolution": [8, 8], "channels": 1, "num_classes": 2},
    "meta_learning": {
        "field": {"width": 8, "depth": 3},
        "training": {
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "log_every": 2,
            "validate_every": 2,
            "keep": "best",
        },
        "spectral_penalty": {"weight": 0.1, "threshold": 0.001},
        "validation_images": 6,
    },
    "functaset": {
        "augmented_copies": 1,
        "shard_rows": 16,
        "chunk_rows": 8,
        "encode_batch": 8,
    },
    "classification": {
        "transformer": {"width": 8, "ffw_width": 8, "blocks": 1, "heads": 2},
        "mlp": {"width": 8, "blocks": 1},
        "training": {
            "steps": 4,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "log_every": 2,
            "validate_every": 2,
            "keep": "best",
        },
    },
    "diffusion": {
        "unet": {"channels": 32, "multipliers": [1], "residual_blocks": 1, "head_dim": 32},
        "mlp": {"width": 8, "blocks": 1},
        "timesteps": 60,
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "log_every": 2, "validate_every": 2},
    },
    "evaluation": {
        "sampling": {"samples": 12, "preset": "fast", "guidance_scale": 2.0, "batch_size": 12},
        "frechet": {
            "feature_network": {
                "steps": 10,
                "batch_size": 4,
                "learning_rate": 3e-3,
                "log_every": 2,
                "validate_every": 2,
            }
        },
        "scores": {"pair_images": 8},
        "figure_images": 2,
    },
}
"""A run that has every part of the flow, and takes a second."""

AUTOENCODER_SIZES: dict[str, Any] = {
    "channels": 8,
    "multipliers": [1, 2],
    "residual_blocks": 1,
    "validation_images": 6,
    **{f"training.{key}": value for key, value in BASE["meta_learning"]["training"].items()},
}
"""Of an encoder that `BASE` has not: it is the field's run."""


@dataclass(frozen=True)
class Row:
    """Another value than `BASE`'s for one key.

    Attributes:
        value: the other one.
        changes: outputs that differ, each by its name; `name (layout)` where only what is on disk does, and `name (words)`
            where only what is written beside it does. An error is an output too: `<node>: <its type>`, or
            `parameters: ValidationError` if nothing is run.
        given: what else is set, by dotted keys, for the key to matter: the outputs are compared with those of this alone.
        in_use: outputs that differ where the weights are used that were made, had these the same numbers and the other
            configuration alone; None: not looked at.
        because: why this is all.
    """

    value: Any
    changes: frozenset[str] | set[str] = frozenset()
    given: Mapping[str, Any] = field(default_factory=dict)
    in_use: frozenset[str] | set[str] | None = None
    because: str = ""


REFUSED = {"parameters: ValidationError"}

FIELD = {"field", "field_history"}
FUNCTASETS = {f"{split}_functaset" for split in ("train", "validation", "test")}
ENCODED = {f"encoded_{name}" for name in FUNCTASETS}
STATISTICS = {"latent_statistics"}
CLASSIFIER = {"classifier", "classifier_history"}
WITH_MIRRORED = {"classification_metrics (words)", "confusion_figure"}
AUTOENCODER = {"autoencoder", "autoencoder_history"}
DENOISER = {"denoiser", "denoiser_history"}
FEATURE_NETWORK = {"feature_network", "feature_network_history"}
SCORES = {"generation_metrics", "generation_scores", "generation_scores_figure"}
FEATURES = {"real_features", "reference_features"} | SCORES
MEMORISATION = {"memorisation_metrics", "memorisation", "memorisation_figure", "nearest_training_images"}
OF_CHANNELS = {
    *("perturbation_metrics", "perturbations", "perturbed_dimensions", "perturbed_channel"),
    *("perturbation_patterns", "perturbation_strengths", "perturbation_locality"),
}
PERTURBATIONS = {*OF_CHANNELS, "perturbation_profile"}
DECODED = {
    *("reconstruction_metrics", "reconstructions", "samples_by_class", "samples_enlarged", "reference_features"),
    *(SCORES | MEMORISATION | OF_CHANNELS),  # where cells share no pixels, the profile is always the same
}


def layout(outputs: set[str]) -> set[str]:
    """Only how they are laid out on disk."""
    return {f"{name} (layout)" for name in outputs}


def words(outputs: set[str]) -> set[str]:
    """Only what is written beside them."""
    return {f"{name} (words)" for name in outputs}


def training(
    block: str,
    outputs: set[str],
    nodes: set[str],
    *,
    has_best: bool = True,
    named: frozenset[str] | set[str] = frozenset(),
) -> dict[str, Row | list[Row]]:
    """Of one training loop, or of several with the same parameters.

    Args:
        block: their parameters'.
        outputs: their weights and histories.
        nodes: that do them.
        has_best: whether they have a validation metric to keep the best weights by.
        named: of the outputs those with the block written beside them.
    """
    histories = {name for name in outputs if name.endswith("history")}
    diverged = {f"{node}: TrainingDivergedError" for node in nodes}
    rate, factor = f"{block}.learning_rate", f"{block}.guard.learning_rate_factor"
    exploding = {rate: 1e30, factor: 1e-33, f"{block}.log_every": 1}  # infinite at once, then so slow that it goes well
    falling = {rate: 0.05, factor: 0.2, f"{block}.validate_every": 1}  # worse in one of the steps
    rows: dict[str, Row | list[Row]] = {
        "steps": Row(1, outputs),
        "batch_size": Row(3, outputs),
        "micro_batch": Row(2),
        "learning_rate": Row(2e-3, outputs),
        "schedule": [Row("cosine", outputs), Row("inverse_sqrt", outputs)],
        "warmup_steps": Row(2, outputs),
        "betas": [Row([0.5, 0.999], outputs), Row([0.9, 0.5], outputs)],
        "weight_decay": Row(0.5, outputs),
        "weight_decay_on": Row("all", outputs, {f"{block}.weight_decay": 0.5}),
        "clip_norm": [Row(1e-3, outputs), Row(None, outputs, {f"{block}.clip_norm": 1e-3})],
        "ema_decay": Row(0.5, outputs),
        "ema_ramp": Row(False, outputs, {f"{block}.ema_decay": 0.99, rate: 0.3}),
        "keep": Row("last", outputs - histories, falling) if has_best else Row("best", REFUSED),
        "log_every": Row(1, histories, because="a history has a row for each logged step"),
        "validate_every": Row(1, outputs, {rate: 0.3}) if has_best else Row(1, histories | words(named)),
        "checkpoint_every": Row(1),
        "guard": Row(None, diverged, exploding),
        "guard.margin": Row(1e-3, outputs, falling) if has_best else Row(1e-3, REFUSED),
        "guard.learning_rate_factor": Row(1e-32, outputs, exploding),
        "guard.retries": [Row(0), Row(0, diverged, exploding, because="it gives up, and makes nothing")],
    }
    return {f"{block}.{key}": row for key, row in rows.items()}


TRANSFORMER_ON_VECTORS = {
    "latent_shape": "1x1x8",
    "classification.architecture": "transformer",
    "classification.transformer.vector_tokens": 2,
}
RANDAUGMENT = {"functaset.augmentation.randaugment_operations": 2}
AUGMENTED = {"encoded_train_functaset"}
CELLS_MIXED = {"meta_learning.field.kernel_size": 3}
QUANTISED = {"quantisation.bits": 8}
CLASSIFIER_MLP = {"classification.architecture": "mlp"}
CONVNEXT_SIZES = {"classification.convnext.width": 8, "classification.convnext.blocks": 1}
CLASSIFIER_CONVNEXT = {"classification.architecture": "convnext"} | CONVNEXT_SIZES
HELD_OUT_MIRRORED = {"functaset.mirror_held_out": True}
DENOISER_MLP = {"diffusion.architecture": "mlp"}
DIT_SIZES: dict[str, Any] = {"width": 8, "ffw_width": 8, "blocks": 1, "heads": 2}
DENOISER_DIT: dict[str, Any] = {
    "diffusion.architecture": "dit",
    **{f"diffusion.dit.{key}": value for key, value in DIT_SIZES.items()},
}
DIT_ON_VECTORS = {**DENOISER_DIT, "latent_shape": "1x1x8", "diffusion.dit.vector_tokens": 2}
OF_AUTOENCODER: dict[str, Any] = {
    "encoder": "autoencoder",
    **{f"autoencoder.{key}": value for key, value in AUTOENCODER_SIZES.items()},
}
UNCONDITIONAL = {"evaluation.sampling.guidance_scale": None}
ALL_TIMESTEPS = {"diffusion.timesteps": 1000}
FLOW_MATCHING = {**ALL_TIMESTEPS, "diffusion.objective": "flow_matching"}
EDM = {**ALL_TIMESTEPS, "diffusion.objective": "edm"}
VECTORS_OF_PIXELS = {"latent_shape": "2x2x16"}
OF_THE_VARIANT = "said once, for all that is of this variant, and checked here"

OPTIONS: dict[str, Row | list[Row]] = {
    "recipe": Row(
        "as_printed",
        given={"evaluation.scores.held_out_in_reference": False},
        because="a data set's rows of presets and its images ask for it: test_recipe.py",
    ),
    "dataset": Row("another", words(ENCODED | {"samples"}), because="names the folders, too"),
    "latent_shape": [
        Row("4x4x4", FIELD),
        Row("4x4x4", {"linear_code"}, {"encoder": "pca"}),
        Row("4x4x4", AUTOENCODER, OF_AUTOENCODER),
    ],
    "interpolation": Row("linear", FIELD),
    "encoder": [
        Row("pca", FIELD | {"linear_code", "encoder"}, because="what is not chosen is not made"),
        Row("pixels", FIELD | {"linear_code", "encoder"}, VECTORS_OF_PIXELS),
        Row("pixels", REFUSED, because="cells have other numbers of pixels than 4"),
        Row("autoencoder", REFUSED, because="it needs sizes"),
        Row("pca", AUTOENCODER | {"linear_code", "encoder"}, OF_AUTOENCODER),
    ],
    "seed": Row(
        1,
        {
            *(FIELD | CLASSIFIER | DENOISER | FEATURE_NETWORK),
            *("encoded_train_functaset", "samples", "reference_features", "generation_scores"),
            *words({"reconstruction_metrics", "classification_metrics", "generation_metrics", "memorisation_metrics"}),
            *words({"latent_metrics", "perturbation_metrics"}),
            "confusion_figure",
        },
        because="figures and tables name the seed",
    ),
    "data_path": Row("elsewhere", because="what is read there is compared with `data`"),
    "data.resolution": Row([16, 16], {"meta_learn_field: UnexpectedImagesError"}),
    "data.channels": Row(3, {"meta_learn_field: UnexpectedImagesError"}),
    "data.num_classes": Row(3, {"meta_learn_field: UnexpectedImagesError"}),
    "meta_learning.field.latent_shape": Row("4x4x4", REFUSED, because=OF_THE_VARIANT),
    "meta_learning.field.interpolation": Row("linear", REFUSED, because=OF_THE_VARIANT),
    "meta_learning.field.resolution": Row([16, 16], REFUSED, because=OF_THE_VARIANT),
    "meta_learning.field.channels": Row(3, REFUSED, because=OF_THE_VARIANT),
    "meta_learning.field.width": Row(16, FIELD),
    "meta_learning.field.depth": Row(4, FIELD),
    "meta_learning.field.omega0": Row(20.0, FIELD, in_use=ENCODED | DECODED),
    "meta_learning.field.kernel_size": Row(3, FIELD),
    "meta_learning.field.kernel_init": Row(
        "centre", FIELD, {"meta_learning.field.kernel_size": 3}, in_use=words(ENCODED)
    ),
    "meta_learning.field.inner_steps": Row(2, FIELD, in_use=ENCODED),
    "meta_learning.field.inner_rate_init": Row([0.01, 0.02], FIELD, in_use=words(ENCODED)),
    "meta_learning.field.precision": [
        Row("bf16", FIELD, in_use=ENCODED),
        Row("tf32", words({"field"}), because="CUDA's alone"),
    ],
    "meta_learning.field.first_step": Row("free", FIELD),
    "meta_learning.field.initialisation": Row("data", FIELD),
    "meta_learning.field.overlap": [
        Row(0.5, FIELD, {"meta_learning.jitter.share": 0.5}, in_use={"samples_enlarged"} | words(ENCODED)),
        Row(0.5, REFUSED, because="jitter trains cells beyond their borders"),
    ],
    **training("meta_learning.training", FIELD, {"meta_learn_field"}),
    "meta_learning.seam_penalty.weight": Row(1.0, FIELD),
    "meta_learning.spectral_penalty.weight": Row(0.0, FIELD),
    "meta_learning.spectral_penalty.threshold": Row(0.002, FIELD),
    "meta_learning.validation_images": Row(4, {"field_history"}),
    "meta_learning.training_inner_steps": Row(1, FIELD),
    "meta_learning.learning_rate_factors.siren": Row(2.0, FIELD),
    "meta_learning.hidden_optimizer": Row("muon", FIELD),
    "meta_learning.learning_rate_factors.hidden": Row(2.0, FIELD),
    "meta_learning.learning_rate_factors.modulation": Row(2.0, FIELD),
    "meta_learning.learning_rate_factors.inner_rates": Row(2.0, FIELD),
    "meta_learning.learning_rate_factors.first_step": Row(2.0, FIELD, {"meta_learning.field.first_step": "free"}),
    "meta_learning.learning_rate_factors.linear": Row(2.0, FIELD, {"meta_learning.field.initialisation": "data"}),
    "meta_learning.jitter.share": [
        Row(1.0, FIELD),
        Row(1.0, REFUSED, {"interpolation": "linear", "meta_learning.field.interpolation": "linear"}),
    ],
    "autoencoder": Row(None, REFUSED, OF_AUTOENCODER),
    **{
        key: [
            Row(row.value, row.changes, OF_AUTOENCODER | dict(row.given), because=row.because)
            for row in (rows if isinstance(rows, list) else [rows])
        ]
        for key, rows in {
            "autoencoder.channels": Row(16, AUTOENCODER),
            "autoencoder.multipliers": Row([2, 1], AUTOENCODER),
            "autoencoder.residual_blocks": Row(2, AUTOENCODER),
            "autoencoder.attention": Row(False, AUTOENCODER),
            "autoencoder.kl_weight": Row(0.1, AUTOENCODER),
            "autoencoder.precision": [
                Row("bf16", AUTOENCODER),
                Row("tf32", words({"autoencoder"}), because="CUDA's alone"),
            ],
            "autoencoder.validation_images": Row(4, words({"autoencoder"}) | {"autoencoder_history"}),
            **training("autoencoder.training", AUTOENCODER, {"train_autoencoder"}),
            "autoencoder.training.keep": Row(
                "last",
                {"autoencoder"},
                {"autoencoder.training.learning_rate": 1.0, "autoencoder.training.validate_every": 1},
            ),
        }.items()
    },
    "functaset.augmented_copies": Row(2, {"encoded_train_functaset"}),
    "functaset.augmentation.flip": [
        Row(False, AUGMENTED),
        Row(False, AUGMENTED | {"train_functaset"}, QUANTISED, because="codes are compared with augmented pictures"),
    ],
    "functaset.augmentation.crop_padding": Row(2, AUGMENTED),
    "functaset.augmentation.resized_crop": Row(True, AUGMENTED),
    "functaset.augmentation.randaugment_operations": Row(2, AUGMENTED),
    "functaset.augmentation.randaugment_magnitude": Row(10, AUGMENTED, RANDAUGMENT),
    "functaset.mirror_images": Row(True, {"encoded_train_functaset"}),
    "functaset.mirror_held_out": Row(True, ENCODED - {"encoded_train_functaset"}),
    "functaset.storage_type": Row("float16", ENCODED),
    "functaset.shard_rows": Row(8, layout(ENCODED)),
    "functaset.chunk_rows": Row(4, layout(ENCODED)),
    "functaset.encode_batch": Row(3),
    "quantisation.bits": [
        *(Row(bits, FUNCTASETS, QUANTISED) for bits in (6, 2)),
        Row(
            8,
            {"train_functaset", "quantise_validation_functaset: ValueError", "quantise_test_functaset: ValueError"},
            because="the ranges are the training split's, which here is still without bits",
        ),
    ],
    "normalization_stats.rotation": [Row(kind, STATISTICS) for kind in ("within_cells", "whole")],
    "classification.architecture": [
        Row("mlp", CLASSIFIER),
        Row("transformer", CLASSIFIER, CONVNEXT_SIZES),
        Row("convnext", REFUSED, because="it needs sizes"),
    ],
    "classification.transformer.width": Row(16, CLASSIFIER),
    "classification.transformer.ffw_width": Row(16, CLASSIFIER),
    "classification.transformer.blocks": Row(2, CLASSIFIER),
    "classification.transformer.heads": Row(4, CLASSIFIER),
    "classification.transformer.head_dim": Row(8, CLASSIFIER),
    "classification.transformer.pooling": Row("concatenate", CLASSIFIER),
    "classification.transformer.vector_tokens": Row(4, CLASSIFIER, TRANSFORMER_ON_VECTORS),
    "classification.mlp.width": Row(16, CLASSIFIER, CLASSIFIER_MLP),
    "classification.mlp.blocks": Row(2, CLASSIFIER, CLASSIFIER_MLP),
    "classification.convnext": [
        Row(None, CLASSIFIER, CONVNEXT_SIZES),
        Row(None, REFUSED, CLASSIFIER_CONVNEXT),
    ],
    "classification.convnext.width": Row(16, CLASSIFIER, CLASSIFIER_CONVNEXT),
    "classification.convnext.blocks": Row(2, CLASSIFIER, CLASSIFIER_CONVNEXT),
    "classification.convnext.downsampled_blocks": Row(1, CLASSIFIER, CLASSIFIER_CONVNEXT),
    "classification.convnext.kernel_size": Row(1, CLASSIFIER, CLASSIFIER_CONVNEXT),
    "classification.convnext.expansion": Row(2, CLASSIFIER, CLASSIFIER_CONVNEXT),
    "classification.drop_path": [
        *(Row(0.5, CLASSIFIER, given, in_use=set()) for given in ({}, CLASSIFIER_MLP, CLASSIFIER_CONVNEXT)),
    ],
    "classification.test_time_flips": [
        Row(True, words({"classifier"}) | {"classifier_history"}, HELD_OUT_MIRRORED, in_use=WITH_MIRRORED),
        Row(True, REFUSED, because="there is no mirrored image"),
    ],
    "classification.dropout": [Row(0.5, CLASSIFIER, in_use=set()), Row(0.5, CLASSIFIER, CLASSIFIER_MLP)],
    "classification.label_smoothing": Row(0.3, CLASSIFIER),
    "classification.mixup": Row(0.5, CLASSIFIER, in_use=set()),
    "classification.preset": Row(
        "vit_b",
        words({"classifier"}),
        because="a data set's rows of presets ask for it: test_classifier_environments.py",
    ),
    "classification.normalisation_scale": Row(0.5, CLASSIFIER),
    "classification.precision": [
        Row("bf16", CLASSIFIER),
        Row("tf32", words({"classifier"}), because="CUDA's alone"),
    ],
    "classification.muon_learning_rate": Row(0.02, CLASSIFIER),
    **training("classification.training", CLASSIFIER, {"train_latent_classifier"}),
    "diffusion.conditional": [Row(False, DENOISER, UNCONDITIONAL), Row(False, DENOISER, UNCONDITIONAL | DENOISER_MLP)],
    "diffusion.dummy_label_share": Row(0.9, DENOISER),
    "diffusion.architecture": [
        Row("mlp", DENOISER),
        Row("dit", REFUSED, because="it needs sizes"),
        Row("unet", DENOISER, DENOISER_DIT),
    ],
    "diffusion.unet.channels": Row(64, DENOISER),
    "diffusion.unet.multipliers": Row([2], DENOISER),
    "diffusion.unet.residual_blocks": Row(2, DENOISER),
    "diffusion.unet.attention_resolutions": Row([], DENOISER),
    "diffusion.unet.dropout": Row(0.5, DENOISER, in_use=words({"samples"})),
    "diffusion.unet.head_dim": Row(16, DENOISER),
    "diffusion.mlp.width": Row(16, DENOISER, DENOISER_MLP),
    "diffusion.mlp.blocks": Row(2, DENOISER, DENOISER_MLP),
    "diffusion.mlp.dropout": Row(0.5, DENOISER, DENOISER_MLP),
    "diffusion.dit": Row(None, REFUSED, DENOISER_DIT),
    "diffusion.dit.width": Row(16, DENOISER, DENOISER_DIT),
    "diffusion.dit.ffw_width": Row(16, DENOISER, DENOISER_DIT),
    "diffusion.dit.blocks": Row(2, DENOISER, DENOISER_DIT),
    "diffusion.dit.heads": Row(4, DENOISER, DENOISER_DIT),
    "diffusion.dit.head_dim": Row(8, DENOISER, DENOISER_DIT),
    "diffusion.dit.vector_tokens": Row(4, DENOISER, DIT_ON_VECTORS),
    "diffusion.dit.dropout": Row(0.5, DENOISER, DENOISER_DIT),
    "diffusion.normalisation.kind": [Row("scalar", DENOISER), Row("array", DENOISER)],
    "diffusion.normalisation.gamma": Row(2.0, DENOISER),
    "diffusion.timesteps": Row(50, DENOISER, in_use={"samples"}),
    "diffusion.noise_schedule": Row("linear", DENOISER, in_use={"samples"}),
    "diffusion.objective": [
        Row("v_prediction", DENOISER, in_use={"samples"}),
        *(Row(objective, DENOISER, ALL_TIMESTEPS, in_use={"samples"}) for objective in ("flow_matching", "edm")),
        Row("edm", REFUSED, because="the number of time steps is of ε and v"),
    ],
    "diffusion.noise_level.mean": [
        Row(1.0, DENOISER, FLOW_MATCHING),
        Row(1.0, REFUSED, because="ε and v have time steps"),
    ],
    "diffusion.noise_level.std": Row(0.5, DENOISER, EDM),
    "diffusion.autoguidance": Row(0.5, {"denoiser"}, because="the guide is kept beside the denoiser"),
    "diffusion.timestep_ratio": Row(4.0, DENOISER),
    "diffusion.timestep_reweighting": Row(True, DENOISER, {"diffusion.timestep_ratio": 4.0}),
    "diffusion.min_snr_gamma": Row(1.0, DENOISER),
    "diffusion.mirror_images": Row(True, DENOISER, {"functaset.mirror_images": True}, in_use=words({"samples"})),
    "diffusion.augmented_copies": [
        Row(True, DENOISER),
        Row(True, DENOISER, {**DENOISER_MLP, "functaset.mirror_images": True}),
        Row(True, REFUSED, {"functaset.augmented_copies": 0}, because="there are none"),
    ],
    "diffusion.precision": [
        Row("bf16", DENOISER, in_use=words({"samples"}), because="samples have a precision of their own"),
        Row("tf32", words({"denoiser"}), because="CUDA's alone"),
    ],
    "diffusion.muon_learning_rate": Row(0.02, DENOISER),
    **training("diffusion.training", DENOISER, {"train_latent_denoiser"}, has_best=False, named={"denoiser"}),
    "evaluation.sampling.samples": Row(13, {"samples", "reference_features"}),
    "evaluation.sampling.preset": Row(None, {"samples"}),
    "evaluation.sampling.sampler": [
        *(Row(sampler, {"samples"}) for sampler in ("ddpm", "ddim", "heun")),
        *(Row(sampler, {"samples"}, FLOW_MATCHING) for sampler in ("euler", "heun")),
        Row("euler", REFUSED, because="it is of flow matching and EDM"),
    ],
    "evaluation.sampling.time_shift": [
        Row(3.0, {"samples"}, FLOW_MATCHING),
        Row(3.0, REFUSED, because="it is of flow matching"),
    ],
    "evaluation.sampling.guidance": [
        Row("autoguidance", {"samples"}, {"diffusion.autoguidance": 0.5}),
        Row("autoguidance", REFUSED, because="no guide is kept"),
    ],
    "evaluation.sampling.steps": Row(10, {"samples"}),
    "evaluation.sampling.guidance_scale": [Row(scale, {"samples"}) for scale in (3.0, 0.0, None)],
    "evaluation.sampling.guidance_interval": Row([0.1, 1.0], {"samples"}),
    "evaluation.sampling.clip_denoised": Row(False, {"samples"}),
    "evaluation.sampling.variance": [
        Row("fixed_large", {"samples"}, {"evaluation.sampling.sampler": "ddpm"}),
        Row("fixed_large", REFUSED, because="other samplers add no noise"),
    ],
    "evaluation.sampling.precision": [
        Row("bf16", {"samples"}),
        Row("tf32", because="CUDA's alone; samples name what they were drawn in"),
    ],
    "evaluation.sampling.batch_size": Row(4, layout({"samples"})),
    "evaluation.frechet.features": [
        Row("convnet_large", FEATURE_NETWORK, because="the features are those of the network, whatever its width"),
        Row(
            "inception",
            FEATURE_NETWORK | FEATURES - SCORES | {"score_samples: ValueError"},
            because="features of two kinds are not compared",
        ),
    ],
    "evaluation.frechet.inception_weights": Row("other.pth", FEATURES, {"evaluation.frechet.features": "inception"}),
    **training("evaluation.frechet.feature_network", FEATURE_NETWORK, {"train_feature_network"}, has_best=False),
    "evaluation.frechet.feature_network.micro_batch": Row(
        2, REFUSED, because="batch normalisation sees all rows at once"
    ),
    "evaluation.scores.reference_images": Row(10, {"real_features"}),
    "evaluation.scores.held_out_in_reference": Row(False, {"real_features"}),
    "evaluation.scores.pair_images": Row(6, FEATURES),
    "evaluation.interval_resamples": Row(3, SCORES, {"evaluation.scores.pair_images": 12}),
    "evaluation.memorisation.images": Row(3, MEMORISATION),
    "evaluation.memorisation.max_side": Row(4, MEMORISATION),
    "evaluation.perturbation.images": Row(1, PERTURBATIONS, CELLS_MIXED),
    "evaluation.perturbation.strength": Row(
        3.0, PERTURBATIONS - {"perturbation_strengths"}, CELLS_MIXED, because="those are in a range of their own"
    ),
    "evaluation.distribution_latents": Row(8, {"latent_metrics", "latent_distribution", "latent_histograms"}),
    "evaluation.figure_images": Row(
        3, {"reconstructions", "samples_enlarged", "nearest_training_images", "perturbed_dimensions"}
    ),
}
