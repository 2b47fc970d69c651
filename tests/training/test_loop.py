"""The training loop: schedules, accumulation, averaging, checkpoints and exact resume."""

import copy
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
from spatial_functa_pipeline.training.average import MovingAverage
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.schedule import build_optimizer, hidden_weights, learning_rate_factor
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
    assert (
        "Checkpoint c.pt is of another training (data was a, is b): starting anew; it is kept as c.old-1.pt"
        in caplog.text
    )
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
    assert "is of another training (a was None, is 1): starting anew; it is kept as c.old-1.pt" in caplog.text
    assert (tmp_path / "c.old-1.pt").exists()


def test_no_checkpoint_that_is_set_aside_replaces_another(tmp_path):
    for number in range(3):
        checkpoint = Checkpoint(tmp_path / "c.pt")
        checkpoint.write({"a": number}, {"step": number})
        assert checkpoint.read({"a": -1}) is None
    for number in range(3):
        assert Checkpoint(tmp_path / f"c.old-{number + 1}.pt").read({"a": number}) == {"step": number}


def test_the_warning_names_what_differs_before_and_now_and_is_short(tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path / "c.pt")
    before = {"training": {"learning_rate": 0.1, "steps": 9}, "words": ["long"] * 50, **dict.fromkeys("abcdef", 0)}
    checkpoint.write(before, {})
    assert checkpoint.read({"training": {"learning_rate": 0.2, "steps": 9}, **dict.fromkeys("abcd", 1)}) is None
    assert (
        "(a was 0, is 1; b was 0, is 1; c was 0, is 1; d was 0, is 1; e was 0, is None; f was 0, is None and 2 more)"
        in (caplog.text)
    )
    checkpoint.write(before, {})
    assert checkpoint.read({**before, "training": {"learning_rate": 0.2, "steps": 9}, "words": "short"}) is None
    assert "(training.learning_rate was 0.1, is 0.2; words was ['long', 'long', " in caplog.text
    assert "'l…, is short)" in caplog.text


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

    def write(self, must_agree, state, *, unreadable_image=False):
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
    """The returned weights are the exponential average of the trajectory, the decay of which rises to 0.6."""
    trajectory = []
    training = make_training(tmp_path / "c.pt", steps=10, log_every=1, ema_decay=0.6)
    training.run = replace(training.run, report=lambda step, metrics: trajectory.append(weights(training).clone()))
    training.train()
    average = trajectory[0]
    for decay, point in zip(
        [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 10 / 19], trajectory[1:], strict=True
    ):
        average = decay * average + (1 - decay) * point
    torch.testing.assert_close(weights(training), average)


def test_the_decay_of_the_average_rises_to_the_given_one_and_no_further():
    model = nn.Linear(1, 1)
    average, before = MovingAverage(model, 0.6), 0.0
    for step in range(30):
        nn.init.constant_(model.weight, float(step))
        average.update_parameters(model)
        decay = 0.0 if step == 0 else min(0.6, (1 + step) / (10 + step))
        before = decay * before + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(before)


def test_a_short_training_with_a_slow_average_learns(tmp_path):
    """With a constant decay of 0.9999 it would end nearer to its first step than to its last."""
    settings = {"steps": 40, "ema_decay": 0.9999, "schedule": "constant", "warmup_steps": 0}
    training = make_training(tmp_path / "a.pt", **settings)
    untrained = training.validate(training.model.eval())["score"]
    start = weights(training)
    averaged = training.train().score.iloc[-1]
    plain = make_training(tmp_path / "b.pt", **{**settings, "ema_decay": None})
    last = plain.train().score.iloc[-1]
    assert averaged > untrained + 0.8 * (last - untrained)
    assert (weights(training) - weights(plain)).norm() < 0.5 * (weights(training) - start).norm()


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
    with pytest.raises(ValueError, match="no parameter is named hidden"):
        build_optimizer(nn.Linear(3, 4), config, muon=["hidden"])


def test_muon_orthogonalises_the_steps_of_its_matrices_alone():
    """Adam's first step is as long as its rate, in every parameter; Muon's has singular values that are about the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 24), nn.Linear(24, 24))
    config = TrainingConfig(steps=1, batch_size=1, learning_rate=1e-2)
    optimizer = build_optimizer(model, config, {"1.weight": 0.5}, muon=["1.weight"])
    assert {group["rate_factor"] for group in optimizer.param_groups} == {0.5, 1.0}
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * group["rate_factor"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(64, 4)).sin().sum().backward()
    optimizer.step()
    moved = {name: value - before[name] for name, value in model.state_dict().items()}
    values = torch.linalg.svdvals(moved.pop("1.weight"))
    assert values[:4].tolist() == pytest.approx([5e-3] * 4, rel=0.4)  # its gradient has rank 4
    for name, change in moved.items():
        assert change.abs().max().item() == pytest.approx(1e-2, rel=1e-2), name


def test_muon_sees_a_convolution_as_a_matrix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1))
    hidden = hidden_weights(model, ["0", "2"])
    assert hidden == ["1.weight"]
    optimizer = build_optimizer(model, TrainingConfig(steps=1, batch_size=1, learning_rate=1e-2), muon=hidden)
    moves = []
    for _ in range(2):  # of the second step, too, the gradient is its own
        before = model[1].weight.detach().clone()
        optimizer.zero_grad()
        (model(torch.randn(16, 3, 6, 6)) * torch.randn(16, 8, 6, 6)).sum().backward()
        optimizer.step()
        moves.append(model[1].weight.detach() - before)
    for move in moves:
        assert torch.linalg.svdvals(move.flatten(1)).tolist() == pytest.approx([1e-2] * 8, rel=0.4)
    assert not torch.equal(*moves)


def test_muon_goes_on_from_its_state():
    torch.manual_seed(0)
    config = TrainingConfig(steps=1, batch_size=1, learning_rate=1e-2)
    models = [nn.Sequential(nn.Conv1d(4, 8, 1), nn.Flatten(), nn.Linear(8, 8)) for _ in range(2)]
    optimizers = [build_optimizer(model, config, muon=["0.weight", "2.weight"]) for model in models]
    inputs = torch.randn(3, 16, 4, 1)

    def step(number, batch):
        optimizers[number].zero_grad()
        models[number](batch).square().sum().backward()
        optimizers[number].step()

    step(0, inputs[0])
    step(0, inputs[1])
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for number in range(2):
        for group in optimizers[number].param_groups:
            group["lr"] = 3e-3
        step(number, inputs[2])
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


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
