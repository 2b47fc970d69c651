"""Which changes a training goes on with, and which make it start anew."""

import shutil
from typing import get_args

import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.diffusion import Objective
from spatial_functa_pipeline.config.places import flatten, nest
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.training.autoencoder import train_autoencoder
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.denoiser import train_denoiser
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun, report_nothing

NORMALISER = Normaliser.by_scale(1.0)
STEPS = {"steps": 12, "batch_size": 4, "guard": {"margin": None}}
"""With a checkpoint every 4 steps, a log line every 5 and a validation every 10: see `tiny.STEPS`."""


def field(functasets, run, training, images=None, **options):
    config = tiny.field_config(**training).model_copy(update=options)
    return train_field.__wrapped__(images or tiny.images(32, 0), tiny.images(16, 1), config, run=run)


def classifier(functasets, run, training, **options):
    config = tiny.transformer(**training).model_copy(update=options)
    return train_classifier.__wrapped__(*functasets, NORMALISER, config, num_classes=2, run=run)


def autoencoder(functasets, run, training, images=None, latent_shape="2x2x4", **options):
    config = tiny.autoencoder_config(**training).model_copy(update=options)
    spec = CodeSpec(LatentShape.parse(latent_shape), (8, 8), 1)
    return train_autoencoder.__wrapped__(images or tiny.images(32, 0), tiny.images(16, 1), spec, config, run=run)


def denoiser(functasets, run, training, architecture="mlp", **options):
    config = tiny.diffusion(architecture, **training).model_copy(update=options)
    return train_denoiser.__wrapped__(*functasets, NORMALISER, config, num_classes=2, run=run)


def feature_network(functasets, run, training, images=None):
    settings = TrainingConfig(**{**tiny.STEPS, **training})
    return train_feature_network(images or tiny.images(32, 0), tiny.images(16, 1), settings, run=run)


TRAININGS = {one.__name__: one for one in (field, autoencoder, classifier, denoiser, feature_network)}
BY_TRAINING = pytest.mark.parametrize("name", TRAININGS)

NEUTRAL_OF_TRAINING = {"micro_batch": 3, "log_every": 3, "checkpoint_every": 5, "guard.retries": 9}
NEUTRAL_OF_RUNTIME = {
    "device": "auto",
    "num_workers": 1,
    "progress": True,
    "compile": "auto",
    "processes": 2,
    "machines": 2,
    "rendezvous": "localhost:1",
    "scheduler": "processes",
    "workers": 2,
    "replace_stale": True,
}
CHANGES_THE_RESULT = {
    "steps": 14,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_steps": 1,
    "betas": (0.8, 0.99),
    "weight_decay": 0.1,
    "weight_decay_on": "all",
    "clip_norm": 0.5,
    "ema_decay": 0.5,
    "ema_ramp": False,
    "keep": "last",
    "validate_every": 5,
    "guard.margin": 1.0,
    "guard.learning_rate_factor": 0.25,
}


class StopError(Exception):
    pass


def stop_at_10(step, metrics):
    if step == 10:
        raise StopError


@pytest.fixture(scope="module")
def functasets(tmp_path_factory):
    folder = tiny.write_functasets(tmp_path_factory.mktemp("functasets"))
    return [Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation")]


@pytest.fixture(scope="module")
def begun(functasets, tmp_path_factory):
    """Gives the checkpoint of a training, which was stopped after its step 8."""
    folder = tmp_path_factory.mktemp("begun")

    def begin(name):
        checkpoint = Checkpoint(folder / f"{name}.pt")
        if not checkpoint.path.exists():
            with pytest.raises(StopError):
                TRAININGS[name](functasets, TrainingRun(0, tiny.RUNTIME, checkpoint, stop_at_10), STEPS)
        return checkpoint.path

    return begin


@pytest.fixture
def go_on(functasets, begun, tmp_path, caplog):
    """Trains on from a copy of that checkpoint with something changed; returns what was logged."""

    def train(name, training=None, seed=0, runtime=None, **options):
        caplog.set_level("INFO")
        checkpoint = Checkpoint(shutil.copy(begun(name), tmp_path / "c.pt"))
        run = TrainingRun(seed, runtime or tiny.RUNTIME, checkpoint, report_nothing)
        settings = nest({**dict(flatten(STEPS)), **(training or {})})
        TRAININGS[name](functasets, run, settings, **options)
        return caplog.text

    return train


def test_the_tables_have_all_keys():
    keys = dict(flatten(TrainingConfig(**STEPS, learning_rate=1).model_dump()))
    neutral = {key for key in keys if key.split(".")[-1] in RESULT_NEUTRAL}
    assert set(NEUTRAL_OF_TRAINING) == neutral
    assert set(CHANGES_THE_RESULT) == set(keys) - neutral
    assert {key.split(".")[-1] for key in neutral} == RESULT_NEUTRAL - {"encode_batch", "num_classes"}  # of no training
    assert set(NEUTRAL_OF_RUNTIME) == set(RuntimeConfig.model_fields)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name in TRAININGS
        for key in NEUTRAL_OF_TRAINING
        if (name, key) != ("feature_network", "micro_batch")  # not allowed: see `FrechetConfig`
    ],
)
def test_a_key_of_a_training_that_changes_no_result_lets_it_go_on(go_on, name, key):
    assert f"{name}: going on from the checkpoint at step 8 of 12" in go_on(name, {key: NEUTRAL_OF_TRAINING[key]})


@BY_TRAINING
@pytest.mark.parametrize("key", NEUTRAL_OF_RUNTIME)
def test_no_key_of_the_runtime_keeps_a_training_from_going_on(go_on, name, key):
    """In one process; `test_processes` has several."""
    changed = {key: NEUTRAL_OF_RUNTIME[key]}
    if key in ("machines", "rendezvous"):
        changed = {one: NEUTRAL_OF_RUNTIME[one] for one in ("machines", "rendezvous")}
    runtime = RuntimeConfig.model_validate(tiny.RUNTIME.model_dump() | changed)
    assert "going on from the checkpoint at step 8 of 12" in go_on(name, runtime=runtime)


@pytest.mark.parametrize("key", CHANGES_THE_RESULT)
def test_a_key_that_changes_the_result_starts_the_training_anew(go_on, key):
    logged = go_on("classifier", {key: CHANGES_THE_RESULT[key]})
    assert f"c.pt is of another training (training.{key} was " in logged
    assert "going on from" not in logged


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("field", {"spectral_penalty": {"weight": 0.5}}, None),
        ("field", {"validation_images": 8}, "validation_images was 16, is 8"),
        ("field", {"images": tiny.images(32, 7)}, "images.digest was "),
        ("classifier", {"dropout": 0.25}, "classification.dropout was 0.5, is 0.25"),
        ("autoencoder", {"kl_weight": 1e-3}, "autoencoder.kl_weight was 1e-06, is 0.001"),
        ("autoencoder", {"images": tiny.images(32, 7)}, "images.digest was "),
        ("autoencoder", {"latent_shape": "4x4x4"}, "latent_shape was 2x2x4, is 4x4x4"),
        ("denoiser", {"objective": "v_prediction"}, "diffusion.objective was epsilon, is v_prediction"),
        ("feature_network", {"images": tiny.images(30, 0)}, "images.count was 32, is 30"),
        *((name, {"seed": 1}, "seed was 0, is 1") for name in TRAININGS),
    ],
)
def test_what_each_training_is_made_of_starts_it_anew(go_on, name, changed, said):
    if "spectral_penalty" in changed:
        config = tiny.field_config().spectral_penalty.model_copy(update=changed["spectral_penalty"])
        changed, said = {"spectral_penalty": config}, "spectral_penalty.weight was 0.001, is 0.5"
    logged = go_on(name, **changed)
    assert "is of another training (" in logged
    assert said in logged
    assert "going on from" not in logged


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [*(("mlp", objective) for objective in get_args(Objective)), ("unet", "epsilon"), ("dit", "flow_matching")],
)
def test_a_denoiser_that_is_interrupted_ends_as_if_it_had_not_been(functasets, tmp_path, architecture, objective):
    """Bit for bit, and so does its guide, which was kept before the interruption."""
    config = tiny.diffusion(architecture, objective, autoguidance=0.5, **STEPS)

    def train(name, report=report_nothing):
        run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / name), report)
        return train_denoiser.__wrapped__(*functasets, NORMALISER, config, num_classes=2, run=run)

    whole, history, guide = train("whole.pt")
    with pytest.raises(StopError):
        train("parts.pt", stop_at_10)
    parts, other_history, other_guide = train("parts.pt")
    for model, other in ((whole, parts), (guide, other_guide)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
    assert history.loss.equals(other_history.loss)
    assert history.validation_loss.dropna().iloc[-1] < 3


def test_the_guide_is_the_denoiser_after_that_share_of_the_training(functasets, tmp_path):
    def train(steps, share):
        config = tiny.diffusion("mlp", autoguidance=share, **STEPS | {"steps": steps})
        run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / f"{steps}.pt"))
        return train_denoiser.__wrapped__(*functasets, NORMALISER, config, num_classes=2, run=run)

    denoiser, _, guide = train(12, 0.5)
    shorter, _, none = train(6, None)
    assert none is None
    for name, value in guide.state_dict().items():
        assert torch.equal(value, shorter.state_dict()[name])
    assert any(not torch.equal(value, guide.state_dict()[name]) for name, value in denoiser.state_dict().items())
