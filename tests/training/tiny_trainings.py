"""Trainings of a second each, which other processes can be given."""

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.classification import ClassificationConfig, ConvNeXtConfig, TransformerConfig
from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, DiTConfig, UNetConfig
from spatial_functa_pipeline.config.meta_learning import FieldConfig, MetaLearningConfig
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.denoiser import train_denoiser
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun, report_nothing

RUNTIME = RuntimeConfig(device="cpu", progress=False, compile="off")
STEPS = {"steps": 30, "batch_size": 4, "learning_rate": 3e-3, "log_every": 5, "validate_every": 10}
STEPS |= {"checkpoint_every": 4, "ema_decay": 0.9}


def images(count, seed):
    """Smooth grey 8×8 images of two classes."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, (count, 1, 1))
    row, column = np.mgrid[:8, :8] / 8
    pixels = 127 + 120 * np.sin(5 * (np.cos(angle) * row + np.sin(angle) * column))
    return Images.from_array(pixels[..., None].astype(np.uint8), np.arange(count) % 2, ("a", "b"))


def field_config(**training):
    field = FieldConfig(latent_shape="2x2x4", interpolation="nearest", resolution=(8, 8), channels=1, width=16, depth=3)
    settings = {**STEPS, "guard": {"margin": 3.0}, "keep": "best", **training}
    return MetaLearningConfig(
        field=field, training=settings, validation_images=16, learning_rate_factors={"inner_rates": 0.1}
    )


def autoencoder_config(**training):
    settings = {**STEPS, "guard": {"margin": 3.0}, "keep": "best", **training}
    return AutoencoderConfig(channels=8, multipliers=(1,), residual_blocks=1, training=settings, validation_images=16)


def train(
    checkpoint, runtime=RUNTIME, report=report_nothing, data_seed=0, spoil=None, spoil_validation=None, **training
):
    """The field and its history."""
    splits = images(32, data_seed), images(16, data_seed + 1)
    train_images, validation_images = (
        replace(split, read=replace(how, read=split.read)) if how else split
        for split, how in zip(splits, (spoil, spoil_validation), strict=True)
    )
    return train_field(
        train_images,
        validation_images,
        field_config(**training),
        run=TrainingRun(0, runtime, Checkpoint(Path(checkpoint)), report),
    )


@dataclass
class Spoil:
    """Images of which process `rank` dies, or cannot read one, at the batch number `at`."""

    rank: int
    at: int
    how: str
    error: Exception = field(default_factory=lambda: ValueError("cannot decode the image number 7"))
    read: object = None
    calls: int = 0

    def __call__(self, rows):
        if this_process().count > 1 and this_process().rank == self.rank:
            self.calls += 1
            if self.calls == self.at:
                if self.how == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise self.error
        return self.read(rows)


@dataclass(frozen=True)
class Journal:
    """A report that writes a line to a file, and at step `interrupt_at` sends `signal` to the process `pid`."""

    path: Path
    pid: int = 0
    signal: int = 0
    interrupt_at: int = -1

    def __call__(self, step, metrics):
        with open(self.path, "a") as file:
            print(step, sorted(metrics), file=file)
        if step == self.interrupt_at:
            os.kill(self.pid, self.signal)


def write_functasets(folder):
    """Training and validation functasets, 4×4×4, of two classes; returns their folder."""
    for split, count in (("train", 64), ("validation", 32)):
        generator = np.random.default_rng(count)
        labels = np.arange(count) % 2
        latents = generator.normal(size=(count, 4, 4, 4)).astype(np.float32) + labels[:, None, None, None]
        header = FunctasetHeader("toy", split, LatentShape((4, 4), 4), "nearest", count)
        rows = Rows.of_samples(latents, labels)

        def encode(start, stop, rows=rows):
            return Rows(**{name: column[start:stop] for name, column in vars(rows).items()})

        write(folder / f"{split}.zarr", FunctasetPlan(header, encode, progress=False))
    return folder


def transformer(**training):
    return ClassificationConfig(
        transformer=TransformerConfig(width=16, ffw_width=16, blocks=1, heads=2),
        mlp=MLPConfig(width=16, blocks=1),
        dropout=0.5,
        training={**STEPS, "batch_size": 8, "keep": "best", **training},
    )


def convnext(**training):
    """With drop path, too."""
    return transformer(**training).model_copy(
        update={"architecture": "convnext", "convnext": ConvNeXtConfig(width=16, blocks=2), "drop_path": 0.5}
    )


def unet(objective="epsilon", **training):
    return diffusion("unet", objective, **training)


def diffusion(architecture, objective="epsilon", autoguidance=None, **training):
    of_timesteps = {"timestep_ratio": 2.0} if objective in ("epsilon", "v_prediction") else {}
    return DiffusionConfig(
        architecture=architecture,
        objective=objective,
        autoguidance=autoguidance,
        unet=UNetConfig(channels=32, multipliers=(1,), residual_blocks=1, dropout=0.3, head_dim=32),
        mlp=DenoiserMLPConfig(width=16, blocks=1),
        dit=DiTConfig(width=16, ffw_width=16, blocks=1, heads=2, dropout=0.3),
        **of_timesteps,
        training={**STEPS, "batch_size": 8, **training},
    )


def train_downstream(folder, runtime=RUNTIME, report=report_nothing, micro_batch="auto"):
    """Classifier, MLP denoiser with its guide and DiT, with their histories, by name, from `write_functasets(folder)`."""
    given = (*(Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation")), Normaliser.by_scale(1.0))
    runs = {
        name: TrainingRun(0, runtime, Checkpoint(folder / f"{name}.pt"), report)
        for name in ("classifier", "denoiser", "dit")
    }
    return {
        "classifier": train_classifier(
            *given,
            transformer(micro_batch=micro_batch),
            num_classes=2,
            run=runs["classifier"],
        ),
        "denoiser": train_denoiser(
            *given,
            diffusion("mlp", autoguidance=0.5, micro_batch=micro_batch),
            num_classes=2,
            run=runs["denoiser"],
        ),
        "dit": train_denoiser(*given, diffusion("dit", micro_batch=micro_batch), num_classes=2, run=runs["dit"]),
    }


def train_and_store(checkpoint, result, *arguments, **training):
    """In another process: `train`, with the field's weights and the history in the file `result`."""
    torch.set_num_threads(1)
    field, history = train(checkpoint, *arguments, **training)
    torch.save((field, history), result)
