"""Meta-learning of the field: θ, λ and the inner rates, by gradients through the inner loop (App. A)."""

from collections.abc import Iterable
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn

from spatial_functa_pipeline.compute import accelerated, resolve_device
from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, per_image_mse, psnr_of_mean_mse
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch

_VALIDATION_BATCH = 16
_POWER_ITERATIONS = 4  # per step; the eigenvector is followed, and changes slowly
_VALIDATION_POWER_ITERATIONS = 30


@several_processes
def train_field(
    train_images: Images,
    validation_images: Images,
    config: MetaLearningConfig,
    *,
    run: TrainingRun,
) -> tuple[SpatialField, pd.DataFrame]:
    """Meta-learn a field; returns its weights, the best by `validation_psnr` (dB) or the last (`keep`), and the history."""
    torch.manual_seed(derive_seed(run.seed, "field", "initialisation"))
    field = SpatialField(config.field.spec)
    training, penalty = config.training, config.spectral_penalty
    device = resolve_device(run.runtime.device)
    fit = accelerated(field, run.runtime, calls=training.steps, device=device, name="field", training=True)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        images = unit_images(batch[0])
        reconstructions, _ = fit(images)
        error = (reconstructions - images).square().mean()
        if not penalty.weight:
            return error
        return error + penalty.weight * (field.spectral_radius() - penalty.threshold).relu().square()

    def batches(start: int) -> Iterable[Batch]:
        order = (training.batch_size, run.seed, training.steps, start)
        return ImageBatches(train_images, *order, run.runtime.num_workers, part=this_process().part)

    @torch.no_grad()
    def follow_spectrum() -> None:
        if penalty.weight:
            field.spectral_radius(_POWER_ITERATIONS)

    def validate(model: nn.Module) -> dict[str, float]:
        return _validation_metrics(cast(SpatialField, model), validation_images, config.validation_images)

    history = Training(
        name="field",
        model=field,
        loss=loss,
        batches=batches,
        config=training,
        run=run,
        must_agree={**config.model_dump(mode="json", exclude={"training"}), "images": describe_images(train_images)},
        validate=validate,
        best="validation_psnr",
        rate_factors={"inner_rates": config.inner_rate_learning_rate_factor},
        before_step=follow_spectrum,
        random=False,
        precision=config.field.precision,
    ).train()
    return field, history


def _validation_metrics(field: SpatialField, images: Images, count: int) -> dict[str, float]:
    """Of the first `count` images: both kinds of PSNR (dB), and the spectral radius that the penalty looks at."""
    device, errors = next(field.parameters()).device, []
    for start in range(0, min(count, len(images)), _VALIDATION_BATCH):
        stop = min(start + _VALIDATION_BATCH, count, len(images))
        batch = unit_images(images.batch(range(start, stop)).to(device))
        errors.append(per_image_mse(field(batch)[0], batch))
    mse = torch.cat(errors)
    return {
        "validation_psnr": mean_psnr(mse).item(),
        "validation_psnr_of_mean_mse": psnr_of_mean_mse(mse).item(),
        "spectral_radius": field.spectral_radius(_VALIDATION_POWER_ITERATIONS).item(),
    }
