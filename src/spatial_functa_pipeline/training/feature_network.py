"""Training of the small image classifier whose features serve where Inception's weights are out of reach."""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.metrics.features import FeatureNetwork
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch

_EVALUATION_BATCH = 256


def train_feature_network(
    train_images: Images,
    validation_images: Images,
    config: TrainingConfig,
    *,
    run: TrainingRun,
) -> tuple[FeatureNetwork, pd.DataFrame]:
    """Train the network on real images alone; returns it with its history.

    One process does it, whatever `run.runtime.processes` says: batch normalisation looks at the whole batch.
    """
    torch.manual_seed(derive_seed(run.seed, "feature_network", "initialisation"))
    network = FeatureNetwork(train_images.channels, len(train_images.classes))

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        images, labels = batch
        return F.cross_entropy(network(images), labels)

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        correct = 0
        for start in range(0, len(validation_images), _EVALUATION_BATCH):
            rows = range(start, min(start + _EVALUATION_BATCH, len(validation_images)))
            predicted = model(validation_images.batch(rows).to(device)).argmax(-1).cpu().numpy()
            correct += (predicted == validation_images.labels[rows.start : rows.stop]).sum().item()
        return {"validation_accuracy": correct / len(validation_images)}

    history = Training(
        name="feature_network",
        model=network,
        loss=loss,
        batches=lambda start: ImageBatches(
            train_images, config.batch_size, run.seed, config.steps, start, run.runtime.num_workers
        ),
        config=config,
        run=run,
        must_agree={"images": describe_images(train_images)},
        validate=validate,
    ).train()
    return network, history
