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
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches, consecutive_batches
from spatial_functa_pipeline.models.denoisers import Denoiser, build_denoiser
from spatial_functa_pipeline.models.diffusion import Process, diffusion_loss
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
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
    """Train a denoiser on images, also mirrored ones if `config` asks for it.

    Returns it with its last (EMA) weights, the history, and its guide, if `config` asks for one: the same network as it was
    after that share of the training.

    `validation_loss` is the objective on the first rows of the validation set with the same noise each time: when it
    rises while `loss` falls, the denoiser is memorising (App. C.2).

    Raises ValueError if there are no mirrored images to train on.
    """
    torch.manual_seed(derive_seed(run.seed, "denoiser", "initialisation"))
    denoiser = build_denoiser(config, train_functaset.latent_shape, num_classes)
    device = resolve_device(run.runtime.device)
    normaliser = normaliser.to(device)
    precision = available_precision(config.precision, device, "denoiser")
    process = Process.of(config)
    training = config.training
    if config.mirror_images and not train_functaset.mirrored:
        raise ValueError(f"mirror_images is true, but {train_functaset} has no mirrored images")
    # Samples should look like images, not like crops with a black border: no other copies.
    rows = train_functaset.originals + (train_functaset.mirrored if config.mirror_images else 0)

    def loss_of(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        latents, labels = batch
        classes = labels if config.conditional else None
        return diffusion_loss(model, normaliser(latents), classes, process, config, num_classes, generator)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        with bf16_products(precision, device):
            return loss_of(denoiser, batch, generator)

    def batches(start: int) -> Iterable[Batch]:
        order = (training.batch_size, run.seed, training.steps, start)
        return FunctasetBatches(train_functaset, *order, rows, this_process().part)

    @float32_products()
    def validate(model: nn.Module) -> dict[str, float]:
        generator = step_generator(run.seed, "denoiser", "validation")
        total, rows = 0.0, 0
        for latents, labels in consecutive_batches(validation_functaset, _VALIDATION_BATCH):
            total += loss_of(model, (latents.to(device), labels.to(device)), generator).item() * len(latents)
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
