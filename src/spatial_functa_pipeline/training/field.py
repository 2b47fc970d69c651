"""Meta-learning of the field: θ, λ and the inner rates, by gradients through the inner loop (App. A)."""

from collections.abc import Iterable, Sequence
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn

from spatial_functa_pipeline.compute import accelerated, resolve_device
from spatial_functa_pipeline.config.meta_learning import LearningRateFactors, MetaLearningConfig
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.images.shifting import shifted
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.metrics.image_quality import per_image_mse
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.linear_code import principal_components
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch
from spatial_functa_pipeline.training.validation import first_images, reconstruction_metrics

_POWER_ITERATIONS = 4  # per step; the eigenvector is followed, and changes slowly
_VALIDATION_POWER_ITERATIONS = 30
_CURVATURE_IMAGES = 4  # a quarter of the time of validating 256: in a trained field about 1 % of the cells are beyond 2
_CURVATURE_PRODUCTS = 8  # exact for cells of up to 8 channels
_EDGE = 2.0  # of an eigenvalue: a gradient step drives latents apart beyond it


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
    if config.field.initialisation == "data":
        start_from_components(field, train_images)
    else:
        field.tie_first_step()
    training, penalty, jitter, seams = config.training, config.spectral_penalty, config.jitter, config.seam_penalty
    grid = config.field.latent_shape.grid
    device = resolve_device(run.runtime.device)
    fit = accelerated(field, run.runtime, calls=training.steps, device=device, name="field", training=True)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        images = unit_images(batch[0])
        offset = draw_offset(jitter.share, len(grid), generator, images.device)
        reconstructions, _ = fit(images, config.training_inner_steps, offset)
        errors = reconstructions - (images if offset is None else shifted(images, offset))
        loss = errors.square().mean()
        if seams.weight and offset is None:  # beside the pixels both of two may be on one side of a border
            loss = loss + seams.weight * seam_error(errors, grid)
        if penalty.weight:
            loss = loss + penalty.weight * (field.spectral_radius() - penalty.threshold).relu().square()
        return loss

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
        rate_factors=rate_factors(field, config.learning_rate_factors),
        muon=hidden_matrices(field) if config.hidden_optimizer == "muon" else (),
        before_step=follow_spectrum,
        random=False,
        precision=config.field.precision,
    ).train()
    return field, history


def draw_offset(share: float, dims: int, generator: torch.Generator, device: torch.device) -> Tensor | None:
    """In that share of cases where beside the pixels to take the loss: `(D,)`, uniform from −½ to ½ pixel; else None."""
    if torch.rand((), generator=generator) >= share:
        return None
    return (torch.rand(dims, generator=generator) - 0.5).to(device)


def seam_error(errors: Tensor, grid: Sequence[int]) -> Tensor:
    """Mean squared difference of the errors `(B, *resolution, channels)` of two pixels that a border of cells lies between.

    0 where there is one cell.
    """
    squares, count = errors.new_zeros(()), 0
    for axis, cells in enumerate(grid, start=1):
        side = errors.shape[axis] // cells
        borders = torch.arange(side, errors.shape[axis], side, device=errors.device)
        across = errors.index_select(axis, borders) - errors.index_select(axis, borders - 1)
        squares, count = squares + across.square().sum(), count + across.numel()
    return squares / max(1, count)


def rate_factors(field: SpatialField, factors: LearningRateFactors) -> dict[str, float]:
    """Of each parameter of the field, by its name."""
    parts = {
        "layers": factors.siren,
        "modulation": factors.modulation,
        "inner_rates": factors.inner_rates,
        "first_step": factors.first_step,
        "linear": factors.linear,
    }
    hidden = {} if factors.hidden is None else dict.fromkeys(hidden_matrices(field), factors.hidden)
    return {
        name: next(factor for part, factor in parts.items() if name.startswith(part))
        for name, _ in field.named_parameters()
    } | hidden


def hidden_matrices(field: SpatialField) -> list[str]:
    """Names of the W×W matrices between the SIREN's sine layers."""
    return [f"layers.{layer}.weight" for layer in range(1, field.sine_layers)]


def start_from_components(field: SpatialField, images: Images) -> None:
    """Start from the principal components of the images' cells; of many images, of some evenly spaced ones.

    With several processes the first one finds them. Raises ImagesError, in all of them, if an image cannot be read.
    """
    spec = field.spec
    components = min(spec.latent_shape.channels, spec.cell_numbers)

    def find() -> tuple[Tensor, Tensor, Tensor]:
        code = principal_components(images, spec.cell, components)
        return code.mean, code.basis, code.deviations

    field.start_from(*this_process().from_first(find))


def _validation_metrics(field: SpatialField, images: Images, count: int) -> dict[str, float]:
    """Of the first `count` images: both kinds of PSNR (dB), and how far the inner loop is from its edge.

    `spectral_radius` is what the penalty looks at, at z = 0. Of the first few images' `SpatialField.step_eigenvalues`,
    `true_spectral_radius` is the largest and `share_beyond_2` the share of those above 2.
    """
    device, errors, few = next(field.parameters()).device, [], torch.empty(0)
    for batch in first_images(images, count, device):
        errors.append(per_image_mse(field(batch)[0], batch))
        few = few if len(few) else batch[:_CURVATURE_IMAGES]
    metrics = reconstruction_metrics(errors)
    eigenvalues = field.step_eigenvalues(few, _CURVATURE_PRODUCTS)
    metrics["spectral_radius"] = field.spectral_radius(_VALIDATION_POWER_ITERATIONS).item()
    if len(eigenvalues):  # a single inner step has none
        metrics["true_spectral_radius"] = eigenvalues.max().item()
        metrics["share_beyond_2"] = (eigenvalues > _EDGE).float().mean().item()
    return metrics
