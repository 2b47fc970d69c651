"""The training loop: schedules, accumulation, averaging, checkpoints and exact resume."""

import math
import os
import signal
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from spatial_functa_pipeline.compute import DeviceError, resolve_device
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.loading.ordering import epoch_batches
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.schedule import build_optimizer, learning_rate_factor
from spatial_functa_pipeline.training.seeding import derive_seed

RUNTIME = RuntimeConfig(device="cpu", progress=False)
INPUTS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS.sum(-1, keepdim=True).sin()
LOGGED = ["step", "loss", "learning_rate", "gradient_norm", "score"]


def make_training(checkpoint_path, *, die_at=None, data="a", model=None, rate_factors=None, best=None, **config):
    """A small regression with dropout and noise, so that every random stream counts."""
    settings = {
        "steps": 40,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "schedule": "cosine",
        "warmup_steps": 5,
        "ema_decay": 0.9,
        "weight_decay": 0.1,
        "log_every": 4,
        "validate_every": 10,
        "checkpoint_every": 7,
        **config,
    }
    config = TrainingConfig(**settings)
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def loss(batch, generator):
        inputs, targets = batch
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return (model(inputs + noise) - targets).square().mean()

    def batches(start):
        for step, rows in enumerate(epoch_batches(64, config.batch_size, 0, start, config.steps), start):
            if step == die_at:
                raise ConnectionError
            yield INPUTS[rows], TARGETS[rows]

    def validate(model):
        assert not model.training
        return {"score": -(model(INPUTS) - TARGETS).square().mean().item()}

    return Training(
        name="test",
        model=model,
        loss=loss,
        batches=batches,
        config=config,
        run=TrainingRun(3, RUNTIME, Checkpoint(checkpoint_path)),
        must_agree={"data": data},
        validate=validate,
        best=best,
        rate_factors=rate_factors or {},
    )


def weights(training):
    return torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])


@pytest.mark.parametrize("ema_decay", [0.9, None])
@pytest.mark.parametrize("best", ["score", None])
@pytest.mark.parametrize("die_at", [3, 13, 22, 39])
def test_a_crashed_training_ends_with_the_same_weights_and_history(tmp_path, die_at, best, ema_decay):
    """It goes back to the last checkpoint, whose step lies between two log lines."""
    settings = {"ema_decay": ema_decay, "best": best, "keep": "best" if best else "last"}
    whole = make_training(tmp_path / "whole.pt", **settings)
    expected = whole.train()
    with pytest.raises(ConnectionError):
        make_training(tmp_path / "cut.pt", die_at=die_at, **settings).train()
    resumed = make_training(tmp_path / "cut.pt", **settings)
    history = resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(history[LOGGED], expected[LOGGED])


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["ctrl-c", "sigterm"]
)
@pytest.mark.parametrize("where", ["loss", "optimizer", "validate"])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(tmp_path, monkeypatch, caplog, where, number, error):
    """It arrives inside step 20, which is validated and recorded before the training stops."""
    whole = make_training(tmp_path / "whole.pt")
    expected = whole.train()
    training = make_training(tmp_path / "cut.pt")
    calls = iter(range(10**6))
    owner, name = {
        "loss": (training, "loss"),
        "optimizer": (torch.optim.AdamW, "step"),
        "validate": (training, "validate"),
    }[where]
    original, fatal = getattr(owner, name), {"loss": 19, "optimizer": 19, "validate": 1}[where]

    def interrupted(*args, **kwargs):
        if next(calls) == fatal:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(error):
            training.train()
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "interrupted at step 20; the same command goes on from there" in caplog.text
    assert training.state.history[-1]["step"] == 20
    assert "score" in training.state.history[-1]
    resumed = make_training(tmp_path / "cut.pt")
    history = resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(history[LOGGED], expected[LOGGED])


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint(tmp_path):
    """A step that was cut in two is not saved: the checkpoint is the one of step 14."""
    training = make_training(tmp_path / "c.pt")
    original = training.loss

    def interrupted(batch, generator):
        if training.state.step == 17:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(batch, generator)

    training.loss = interrupted
    with pytest.raises(KeyboardInterrupt):
        training.train()
    assert Checkpoint(tmp_path / "c.pt").read(training._what_must_agree())["step"] == 14


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path, caplog):
    make_training(tmp_path / "c.pt", steps=20).train()
    fresh = make_training(tmp_path / "c.pt", steps=20, data="b")
    history = fresh.train()
    assert history.step.min() < 20
    assert "another data" in caplog.text
    again = make_training(tmp_path / "c.pt", steps=20, data="b")
    assert len(again.train()) == len(history)
    assert torch.equal(weights(again), weights(fresh))


def test_a_half_written_checkpoint_does_not_replace_a_whole_one(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    checkpoint.write({"a": 1}, {"step": 1})

    def disk_full(state, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write({"a": 1}, {"step": 2})
    assert checkpoint.read({"a": 1}) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_checkpoint_of_an_older_version_is_kept_and_not_continued(tmp_path, caplog):
    torch.save({"identity": {"a": 1}, "state": {"step": 1}}, tmp_path / "c.pt")
    assert Checkpoint(tmp_path / "c.pt").read({"a": 1}) is None
    assert "made with another a: starting anew; it is kept as c.old" in caplog.text
    assert (tmp_path / "c.old").exists()


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batches_give_the_whole_batchs_gradient(micro_batch):
    """Without noise and dropout; 3 does not divide 8."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    start = weights_of(model)
    config = TrainingConfig(
        steps=1, batch_size=8, learning_rate=1.0, micro_batch=micro_batch, clip_norm=None, log_every=1
    )
    inputs, targets = INPUTS[:8].double(), TARGETS[:8].double()
    training = Training(
        name="test",
        model=model,
        loss=lambda batch, generator: (model(batch[0]) - batch[1]).square().mean(),
        batches=lambda start: [(inputs, targets)],
        config=config,
        run=TrainingRun(0, RUNTIME, _NoCheckpoint()),
        must_agree={},
    )
    seen = {}
    optimizer_step = torch.optim.AdamW.step

    def capture(self, *args, **kwargs):
        seen["gradient"] = torch.cat([p.grad.flatten().clone() for p in model.parameters()])
        return optimizer_step(self, *args, **kwargs)

    torch.optim.AdamW.step, original = capture, optimizer_step
    try:
        training.train()
    finally:
        torch.optim.AdamW.step = original
    reference = nn.Linear(5, 1).double()
    nn.utils.vector_to_parameters(start, reference.parameters())
    (reference(inputs) - targets).square().mean().backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    torch.testing.assert_close(seen["gradient"], expected)


class _NoCheckpoint:
    def read(self, must_agree):
        return None

    def write(self, must_agree, state):
        pass


def weights_of(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_buffers_are_not_averaged(tmp_path, interpolation):
    """An average of whole numbers is rounded down: a field's points would end up in other cells."""
    model = SpatialField(FieldSpec(LatentShape((8, 8), 2), (16, 16), 1, interpolation, 8, 2, 10.0))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = make_training(tmp_path / "c.pt", model=model, steps=30, ema_decay=0.9, validate_every=30)
    training.loss = lambda batch, generator: sum(p.square().mean() for p in model.parameters())
    seen = {}
    training.validate = lambda average: seen.update(average.named_buffers()) or {"score": 0.0}
    training.train()
    assert before.keys() == seen.keys()
    for name, buffer in seen.items():
        assert torch.equal(buffer, before[name]), name


def test_the_average_is_what_is_validated_and_returned(tmp_path):
    """With decay 0.9 the returned weights are the exponential average of the trajectory."""
    trajectory = []
    training = make_training(tmp_path / "c.pt", steps=10, log_every=1)
    training.run = replace(training.run, report=lambda step, metrics: trajectory.append(weights(training).clone()))
    training.train()
    average = trajectory[0]
    for point in trajectory[1:]:
        average = 0.9 * average + 0.1 * point
    torch.testing.assert_close(weights(training), average)


def restless(checkpoint_path, **config):
    """A training that is best by its score long before its end."""
    settings = {"steps": 40, "validate_every": 1, "ema_decay": None, "learning_rate": 0.3, "schedule": "constant"}
    return make_training(checkpoint_path, best="score", **settings, **config)


def test_the_last_weights_are_returned_unless_the_best_are_asked_for(tmp_path):
    training, state = restless(tmp_path / "c.pt"), None
    validate = training.validate

    def record(model):
        nonlocal state
        state = weights(training).clone()
        return validate(model)

    training.validate = record
    training.train()
    assert torch.equal(weights(training), state)


def test_the_best_weights_need_a_metric_to_be_best_in(tmp_path):
    with pytest.raises(ValueError, match="keep is best, but there is no validation metric"):
        make_training(tmp_path / "c.pt", keep="best")


def test_the_best_validated_weights_are_returned(tmp_path):
    training = restless(tmp_path / "c.pt", keep="best")
    seen = {}
    validate = training.validate

    def record(model):
        metrics = validate(model)
        seen[metrics["score"]] = weights(training).clone()
        return metrics

    training.validate = record
    training.train()
    assert torch.equal(weights(training), seen[max(seen)])
    assert list(seen).index(max(seen)) < 39  # the best one is not trivially the last


def test_learning_rate_schedules():
    def factors(schedule, steps=(0, 9, 10, 55, 99)):
        config = TrainingConfig(steps=100, batch_size=1, learning_rate=1, schedule=schedule, warmup_steps=10)
        return [learning_rate_factor(config, step) for step in steps]

    assert factors("constant") == pytest.approx([0.1, 1, 1, 1, 1])
    assert factors("cosine") == pytest.approx([0.1, 1, 1, 0.5, 0.5 * (1 + math.cos(math.pi * 89 / 90))])
    assert factors("inverse_sqrt") == pytest.approx([0.1, 1, math.sqrt(10 / 11), math.sqrt(10 / 56), math.sqrt(0.1)])


@pytest.mark.parametrize(("decayed", "expected"), [("matrices", [0.3, 0, 0, 0]), ("all", [0.3, 0.3, 0.3, 0.3])])
def test_only_matrices_are_decayed_unless_all_weights_are_to_be(decayed, expected):
    config = TrainingConfig(steps=1, batch_size=1, learning_rate=1, weight_decay=0.3, weight_decay_on=decayed)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    decay = {
        parameter: group["weight_decay"]
        for group in build_optimizer(model, config).param_groups
        for parameter in group["params"]
    }
    assert [decay[parameter] for parameter in model.parameters()] == expected


def test_single_parameters_have_their_own_learning_rate(tmp_path):
    """Adam's first step is as long as the learning rate, in every parameter."""
    constant = {"schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "ema_decay": None}
    training = make_training(tmp_path / "c.pt", steps=1, rate_factors={"0.bias": 0.1}, **constant)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.train()
    moved = {name: (value - before[name]).abs().max().item() for name, value in training.model.state_dict().items()}
    assert moved == pytest.approx({"0.weight": 1e-2, "0.bias": 1e-3, "3.weight": 1e-2, "3.bias": 1e-2}, rel=1e-3)


def test_a_learning_rate_for_an_unknown_parameter_is_an_error():
    config = TrainingConfig(steps=1, batch_size=1, learning_rate=1)
    with pytest.raises(ValueError, match="no parameter is named inner_rates"):
        build_optimizer(nn.Linear(3, 4), config, {"inner_rates": 0.1})


def test_seeds_differ_by_purpose_and_step_and_are_stable():
    seeds = {derive_seed(seed, name, step) for seed in (0, 1) for name in ("loss", "dropout") for step in range(100)}
    assert len(seeds) == 400
    assert max(seeds) < 2**63
    assert derive_seed(0, "loss", 7) == 8513644959549663955


def test_a_device_that_is_not_there_is_an_error():
    assert resolve_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"^device is cuda:1, but .* use cpu or auto"):
            resolve_device("cuda:1")
