"""Training of the denoiser on normalised latents (App. B.1, C)."""

import copy
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor, nn

from spatial_functa_pipeline.compute import available_precision, bf16_products, float32_products, resolve_device
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.augmentation import CopyKind
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches, consecutive_batches
from spatial_functa_pipeline.models.denoisers import Denoiser, build_denoiser
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.schedule import muon_for
from spatial_functa_pipeline.training.seeding import derive_seed, step_generator
from spatial_functa_pipeline.training.step import Batch

_VALIDATION_ROWS = 1024
_VALIDATION_BATCH = 256


@several_processes
def train_denoiser(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    normaliser: Normaliser,
    config: DiffusionConfig,
    *,
    num_classes: int,
    run: TrainingRun,
) -> tuple[Denoiser, pd.DataFrame, Denoiser | None]:
    """Train a denoiser on images, also mirrored ones or all copies if `config` asks for it.

    Returns it with its last (EMA) weights, the history, and its guide, if `config` asks for one: the same network as it was
    after that share of the training.

    `validation_loss` is the objective on the first rows of the validation set with the same noise each time: when it
    rises while `loss` falls, the denoiser is memorising (App. C.2).

    Raises ValueError if there are no mirrored images, or no augmented copies, to train on.
    """
    torch.manual_seed(derive_seed(run.seed, "denoiser", "initialisation"))
    denoiser = build_denoiser(config, train_functaset.latent_shape, num_classes)
    device = resolve_device(run.runtime.device)
    normaliser = normaliser.to(device)
    precision = available_precision(config.precision, device, "denoiser")
    process = Process.of(config)
    training = config.training
    _require_copies(train_functaset, config)
    rows = rows_to_train_on(train_functaset, config)

    def loss_of(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        latents, labels, *kinds = batch
        classes = labels if config.conditional else None
        known = _as_wanted(kinds[0], config) if kinds else None
        return diffusion_loss(model, normaliser(latents), classes, process, config, num_classes, generator, known)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        with bf16_products(precision, device):
            return loss_of(denoiser, batch, generator)

    def batches(start: int) -> Iterable[Batch]:
        order = (training.batch_size, run.seed, training.steps, start)
        return FunctasetBatches(train_functaset, *order, rows, this_process().part, config.augmented_copies)

    @float32_products()
    def validate(model: nn.Module) -> dict[str, float]:
        generator = step_generator(run.seed, "denoiser", "validation")
        total, rows = 0.0, 0
        for latents, labels in consecutive_batches(validation_functaset, _VALIDATION_BATCH):
            kinds = [torch.full_like(labels, CopyKind.ORIGINAL)] if config.augmented_copies else []
            batch = [column.to(device) for column in (latents, labels, *kinds)]
            total += loss_of(model, batch, generator).item() * len(latents)
            rows += len(latents)
            if rows >= _VALIDATION_ROWS:
                break
        return {"validation_loss": total / rows}

    training_run = Training(
        name="denoiser",
        model=denoiser,
        loss=loss,
        batches=batches,
        config=training,
        run=run,
        must_agree={
            "diffusion": config.model_dump(mode="json", exclude={"training"}),
            "functaset": train_functaset.header.to_attributes(),
            "rotated_numbers": normaliser.rotated_numbers,
        },
        validate=validate,
        keep_weights_at=config.guide_step,
        **muon_for(denoiser, denoiser.ENDS, config.muon_learning_rate, training),
        precision=precision,
    )
    history = training_run.train()
    return denoiser, history, _guide(denoiser, training_run.state.kept)


def _guide(denoiser: Denoiser, weights: dict[str, Tensor] | None) -> Denoiser | None:
    if weights is None:
        return None
    guide = copy.deepcopy(denoiser)
    guide.load_state_dict(weights)
    return guide


def rows_to_train_on(functaset: Functaset, config: DiffusionConfig) -> int:
    """How many rows of a functaset, from the first on, a denoiser is trained on.

    Other copies than mirrored images only with their kind as a condition: samples should look like images, not like crops
    with a black border.
    """
    if config.augmented_copies:
        return len(functaset)
    return functaset.undistorted if config.mirror_images else functaset.originals


def _require_copies(functaset: Functaset, config: DiffusionConfig) -> None:
    if config.mirror_images and not functaset.mirrored:
        raise ValueError(f"mirror_images is true, but {functaset} has no mirrored images")
    if config.augmented_copies and len(functaset) == functaset.undistorted:
        raise ValueError(f"augmented_copies is true, but {functaset} has no augmented copies")


def _as_wanted(kinds: Tensor, config: DiffusionConfig) -> Tensor:
    """With `mirror_images`, samples may be mirrored images, too: these count as originals."""
    return kinds.masked_fill(kinds == CopyKind.MIRRORED, CopyKind.ORIGINAL) if config.mirror_images else kinds
