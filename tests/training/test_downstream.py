"""Classifier and denoiser trained for a moment on latents whose distribution is known."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.classification import ClassificationConfig, TransformerConfig
from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, UNetConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.models.sampling import sample
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import accuracy, train_classifier
from spatial_functa_pipeline.training.denoiser import train_denoiser
from spatial_functa_pipeline.training.run import TrainingRun

pytestmark = pytest.mark.slow

RUNTIME = RuntimeConfig(device="cpu", progress=False)
MEANS = np.array([[2.0, -1.0], [-1.0, 3.0]])  # of the two classes, in the two channels
STDS = np.array([[0.5, 0.2], [0.3, 0.6]])


@pytest.fixture(scope="module")
def functasets(tmp_path_factory):
    """Training and validation functasets 1×1×2; augmented copies follow that no denoiser must see."""
    made = []
    for split, seed in (("train", 0), ("validation", 1)):
        generator = np.random.default_rng(seed)
        labels = np.arange(2000) % 2
        latents = MEANS[labels] + STDS[labels] * generator.normal(size=(2000, 2))
        copies = np.full((500, 2), 30.0)
        rows = Rows(
            latents=np.concatenate([latents, copies])[:, None, None].astype(np.float32),
            labels=np.concatenate([labels, np.zeros(500, np.int64)]),
            source_index=np.concatenate([np.arange(2000), np.arange(500)]),
            augmentation=np.repeat([0, 1], [2000, 500]).astype(np.int32),
            psnr=np.zeros(2500, np.float32),
        )
        if split == "validation":
            rows = Rows(**{name: column[:2000] for name, column in vars(rows).items()})
        header = FunctasetHeader("toy", split, LatentShape((1, 1), 2), "nearest", len(rows.labels))
        path = tmp_path_factory.mktemp("toy") / f"{split}.zarr"

        def encode(start, stop, rows=rows):
            return Rows(**{name: column[start:stop] for name, column in vars(rows).items()})

        write(path, FunctasetPlan(header, encode, progress=False))
        made.append(Functaset.open(path))
    return made


@pytest.mark.parametrize(
    ("process", "sampler"),
    [
        ({"objective": "epsilon", "noise_schedule": "linear", "timesteps": 100}, "ddpm"),
        ({"objective": "v_prediction", "timesteps": 100}, "ddpm"),
        ({"objective": "flow_matching"}, "heun"),
        ({"objective": "edm"}, "dpm_solver"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["objective"],
)
def test_a_trained_denoiser_samples_each_class(functasets, tmp_path, process, sampler):
    """Training and sampling agree on what is predicted, at which noise level and for which label."""
    config = DiffusionConfig(
        unet=UNetConfig(channels=32, multipliers=(1,), residual_blocks=1),
        mlp=DenoiserMLPConfig(width=128, blocks=2),
        **process,
        training=TrainingConfig(
            steps=800,
            batch_size=128,
            learning_rate=2e-3,
            schedule="cosine",
            warmup_steps=50,
            ema_decay=0.99,
            validate_every=800,
            checkpoint_every=800,
        ),
    )
    train, validation = functasets
    normaliser = Normaliser.from_statistics(compute_statistics(train), "vector", 1.0)
    denoiser, history, _ = train_denoiser(
        train,
        validation,
        normaliser,
        config,
        num_classes=2,
        run=TrainingRun(0, RUNTIME, Checkpoint(tmp_path / "c.pt")),
    )
    assert history.validation_loss.dropna().iloc[-1] < 1
    labels = torch.arange(1000) % 2
    steps = 100 if sampler == "ddpm" else 20
    how = SamplingConfig(samples=1000, sampler=sampler, steps=steps, guidance_scale=1.0, batch_size=1000)
    drawn = sample(denoiser, config, how, labels, train.latent_shape, normaliser.clip_range, seed=1, device="cpu")
    latents = normaliser.inverse(drawn)[:, 0, 0].numpy()
    for label in (0, 1):
        chosen = latents[labels.numpy() == label]
        np.testing.assert_allclose(chosen.mean(axis=0), MEANS[label], atol=0.2)
        np.testing.assert_allclose(chosen.std(axis=0), STDS[label], rtol=0.35)


def test_a_trained_classifier_tells_the_classes_apart(functasets, tmp_path):
    config = ClassificationConfig(
        transformer=TransformerConfig(width=8, ffw_width=8, blocks=1, heads=2),
        mlp=MLPConfig(width=32, blocks=1),
        training=TrainingConfig(
            steps=200,
            batch_size=64,
            learning_rate=1e-2,
            validate_every=50,
            checkpoint_every=200,
            ema_decay=0.9,
            keep="best",
        ),
    )
    train, validation = functasets
    normaliser = Normaliser.by_scale(1.0)
    classifier, history = train_classifier(
        train,
        validation,
        normaliser,
        config,
        num_classes=2,
        run=TrainingRun(0, RUNTIME, Checkpoint(tmp_path / "c.pt")),
    )
    reached = accuracy(classifier, normaliser, validation, flips=False)
    assert reached > 0.97
    assert reached == history.validation_accuracy.max()
