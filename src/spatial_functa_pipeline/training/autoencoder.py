"""Training of the autoencoder on images: reconstruction and a little divergence (Rombach et al., 2022)."""

from collections.abc import Iterable
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn

from spatial_functa_pipeline.compute import available_precision, bf16_products, float32_products, resolve_device
from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.metrics.image_quality import per_image_mse
from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch
from spatial_functa_pipeline.training.validation import first_images, reconstruction_metrics


@several_processes
def train_autoencoder(
    train_images: Images,
    validation_images: Images,
    spec: CodeSpec,
    config: AutoencoderConfig,
    *,
    run: TrainingRun,
) -> tuple[Autoencoder, pd.DataFrame]:
    """Train an autoencoder; returns its weights, the best by `validation_psnr` (dB) or the last (`keep`), and the history.

    The loss is the mean squared error of what a latent drawn from the posterior decodes to, and `kl_weight` times the
    posterior's divergence, divided by the numbers of an image.

    Raises ValueError for a spec that an autoencoder cannot have.
    """
    torch.manual_seed(derive_seed(run.seed, "autoencoder", "initialisation"))
    autoencoder = Autoencoder(spec, config)
    training, device = config.training, resolve_device(run.runtime.device)
    precision = available_precision(config.precision, device, "autoencoder")

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        images = unit_images(batch[0])
        with bf16_products(precision, device):
            reconstructions, divergence = autoencoder.with_noise(images, generator)
        error = (reconstructions.float() - images).square().mean()
        return error + config.kl_weight * divergence.float().mean() / images[0].numel()

    def batches(start: int) -> Iterable[Batch]:
        order = (training.batch_size, run.seed, training.steps, start)
        return ImageBatches(train_images, *order, run.runtime.num_workers, part=this_process().part)

    @float32_products()
    def validate(model: nn.Module) -> dict[str, float]:
        images = first_images(validation_images, config.validation_images, device)
        return reconstruction_metrics([per_image_mse(cast(Autoencoder, model)(batch)[0], batch) for batch in images])

    history = Training(
        name="autoencoder",
        model=autoencoder,
        loss=loss,
        batches=batches,
        config=training,
        run=run,
        must_agree={
            "autoencoder": config.model_dump(mode="json", exclude={"training"}),
            "latent_shape": str(spec.latent_shape),
            "images": describe_images(train_images),
        },
        validate=validate,
        best="validation_psnr",
        precision=precision,
    ).train()
    return autoencoder, history
