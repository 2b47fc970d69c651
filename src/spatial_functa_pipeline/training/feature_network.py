"""Training of the small image classifier whose features serve where Inception's weights are out of reach.

Where all images are of one class, it tells by how many quarter turns an image was turned, which takes some knowledge of what
is in it (Gidaris et al., 2018).
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.metrics.features import FEATURE_WIDTHS, FeatureNetwork
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch

_EVALUATION_BATCH = 256


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Images (B, H, W, channels), each turned by so many quarters (B,): of oblong ones only by two."""
    return torch.stack([image.rot90(int(count)) for image, count in zip(images, quarters, strict=True)])


def train_feature_network(
    train_images: Images,
    validation_images: Images,
    config: TrainingConfig,
    *,
    run: TrainingRun,
    width: int = FEATURE_WIDTHS["convnet"],
) -> tuple[FeatureNetwork, pd.DataFrame]:
    """Train the network with `width` features on real images alone; returns it with its history.

    One process does it, whatever `run.runtime.processes` says: batch normalisation looks at the whole batch.
    """
    torch.manual_seed(derive_seed(run.seed, "feature_network", "initialisation"))
    turned = len(train_images.classes) == 1
    turns = 4 if len(set(train_images.resolution)) == 1 else 2
    network = FeatureNetwork(train_images.channels, turns if turned else len(train_images.classes), width)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        images, labels = batch
        if turned:
            turned_by = (turns * torch.rand(len(labels), generator=generator)).long()
            images, labels = turn(images, turned_by * (4 // turns)), turned_by.to(labels.device)
        return F.cross_entropy(network(images), labels)

    def validate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        correct = 0
        for start in range(0, len(validation_images), _EVALUATION_BATCH):
            rows = np.arange(start, min(start + _EVALUATION_BATCH, len(validation_images)))
            images, labels = validation_images.batch(rows), torch.from_numpy(validation_images.labels[rows])
            if turned:
                labels = torch.from_numpy(rows % turns)
                images = turn(images, labels * (4 // turns))
            correct += int((model(images.to(device)).argmax(-1).cpu() == labels).sum())
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
