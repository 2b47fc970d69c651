"""Roll-backs: what sets one off, where it goes back to, and that an interruption changes nothing about it."""

import math

import pandas as pd
import pytest
import torch
from torch import nn

from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import GuardConfig, TrainingConfig
from spatial_functa_pipeline.loading.ordering import epoch_batches
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.guard import TrainingDivergedError
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import TrainingRun

INPUTS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS.sum(-1, keepdim=True).sin()
LOGGED = ["step", "loss", "learning_rate", "gradient_norm", "score", "rollbacks"]


class CrashError(Exception):
    pass


class Poison:
    """Spoils the loss at step `at` as long as the learning rate there is at least `above`."""

    def __init__(self, at, factor, above=0.0):
        self.at, self.factor, self.above = at, factor, above

    def __call__(self, training):
        rate = training.state.optimizer.param_groups[0]["lr"]
        return self.factor if training.state.step == self.at and rate >= self.above else 1.0


def make_training(path, *, poison=None, die_at=None, best="score", reports=None, **settings):
    """A small regression with dropout and noise; with `best`, its validation metric is minus the error."""
    settings = {
        "steps": 60,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "ema_decay": 0.8,
        "log_every": 4,
        "validate_every": 10,
        "checkpoint_every": 7,
        "guard": {"margin": 0.3 if best else None},
        "keep": "best" if best else "last",
        **settings,
    }
    config = TrainingConfig(**settings)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Dropout(0.1), nn.Linear(16, 1))
    life = iter(range(die_at or 10**9))

    def loss(batch, generator):
        if next(life, None) is None:
            raise CrashError
        inputs, targets = batch
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        value = (model(inputs + noise) - targets).square().mean()
        return value * poison(training) if poison else value

    def report(step, metrics):
        if reports is not None:
            reports.append((step, metrics))

    training = Training(
        name="test",
        model=model,
        loss=loss,
        batches=lambda start: (
            (INPUTS[rows], TARGETS[rows]) for rows in epoch_batches(64, config.batch_size, 0, start, config.steps)
        ),
        config=config,
        run=TrainingRun(3, RuntimeConfig(device="cpu", progress=False), Checkpoint(path), report),
        must_agree={},
        validate=lambda model: {"score": -(model(INPUTS) - TARGETS).square().mean().item()},
        best=best,
    )
    return training


def weights(training):
    return nn.utils.parameters_to_vector(training.model.parameters()).detach().clone()


@pytest.mark.parametrize("best", ["score", None])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_rolls_back_to_the_last_good_validation(tmp_path, caplog, bad, best):
    """At step 25; noticed at 28. The state of step 20 is the best one, too."""
    reports = []
    training = make_training(tmp_path / "c.pt", poison=Poison(25, bad, above=1e-2), best=best, reports=reports)
    history = training.train()
    assert "at step 28; back to step 20, on with 0.5 times the learning rate (roll-back 1 of at most 5)" in caplog.text
    assert (28, {"rollbacks": 1}) in reports
    assert history.step.is_unique
    assert history.step.is_monotonic_increasing
    assert history[history.step <= 20].rollbacks.isna().all()
    assert (history[history.step > 20].rollbacks == 1).all()
    assert history[history.step > 20].learning_rate.dropna().unique().tolist() == [5e-3]
    assert weights(training).isfinite().all()


def test_a_collapse_of_the_validation_metric_rolls_back_to_its_best(tmp_path, caplog):
    """The loss stays finite, but step 34 spoils the model."""
    training = make_training(tmp_path / "c.pt", ema_decay=None)
    honest = training.loss

    def spoil(batch, generator):
        value = honest(batch, generator)
        if training.state.step == 34 and training.state.rollbacks == 0:
            with torch.no_grad():
                training.model[-1].bias.add_(3.0)
        return value

    training.loss = spoil
    history = training.train()
    assert "the score fell to -" in caplog.text
    assert "more than 0.3 below its best" in caplog.text
    assert "back to step 30" in caplog.text
    assert history.rollbacks.max() == 1
    assert history.score.dropna().iloc[-1] > -0.5


def test_within_the_margin_nothing_happens(tmp_path):
    plain = make_training(tmp_path / "plain.pt", guard=None)
    guarded = make_training(tmp_path / "guarded.pt")
    logged = LOGGED[:-1]
    pd.testing.assert_frame_equal(plain.train()[logged], guarded.train()[logged])
    assert torch.equal(weights(plain), weights(guarded))


def test_trouble_before_the_first_validation_goes_back_to_the_start(tmp_path, caplog):
    training = make_training(tmp_path / "c.pt", poison=Poison(5, math.nan, above=1e-2))
    history = training.train()
    assert "back to step 0" in caplog.text
    assert (history.rollbacks == 1).all()
    assert history.step.iloc[0] == 4


def test_a_roll_back_draws_other_random_numbers(tmp_path):
    """With a learning rate that hardly falls, only they can differ."""
    seen = []
    training = make_training(
        tmp_path / "c.pt",
        poison=Poison(5, math.nan, above=1e-2),
        guard={"learning_rate_factor": 1 - 1e-6},
        best=None,
        batch_size=64,
    )
    draw = training.loss

    def record(batch, generator):
        if training.state.step == 0:
            seen.append(torch.randn(3, generator=generator.clone_state()))
        return draw(batch, generator)

    training.loss = record
    training.train()
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_after_enough_tries_it_gives_up_and_keeps_the_checkpoint(tmp_path):
    """Trouble at any rate. With more `retries` the same training goes on from the checkpoint."""
    poison = Poison(25, math.nan)
    with pytest.raises(TrainingDivergedError, match=r"test: the loss is nan at step 28, after 2 roll-backs .* guard"):
        make_training(tmp_path / "c.pt", poison=poison, guard={"retries": 2}).train()
    training = make_training(tmp_path / "c.pt", poison=None, guard={"retries": 3})
    history = training.train()
    assert history.rollbacks.max() == 2
    assert history.learning_rate.dropna().iloc[-1] == 2.5e-3


def test_without_a_guard_a_loss_that_is_not_finite_is_an_error_at_once(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"test: the loss is nan at step 28\. .*set a guard"):
        make_training(tmp_path / "c.pt", poison=Poison(25, math.nan), guard=None).train()
    training = make_training(tmp_path / "c.pt", guard=None)
    assert Checkpoint(tmp_path / "c.pt").read(training._what_must_agree())["step"] == 21


def test_a_guard_that_is_set_later_goes_on_from_there(tmp_path, caplog):
    """As the error advises. Up to its trouble, the training is the one that a guard would have left alone."""
    caplog.set_level("INFO")
    poison, best = Poison(25, math.nan, above=1e-2), None
    with pytest.raises(TrainingDivergedError, match=r"set a guard and run again to go on from it"):
        make_training(tmp_path / "c.pt", poison=poison, guard=None, best=best).train()
    history = make_training(tmp_path / "c.pt", poison=poison, guard={"retries": 1}, best=best).train()
    assert "going on from the checkpoint at step 21" in caplog.text
    assert history.rollbacks.max() == 1


@pytest.mark.parametrize("best", ["score", None])
@pytest.mark.parametrize("steps_of_life", [6, 19, 23, 27, 33, 41, 60])
def test_a_killed_and_resumed_training_rolls_back_as_the_uninterrupted_one(tmp_path, steps_of_life, best):
    """Steps 25 to 28 are run three times by then: the loss is bad at the first two rates."""
    poison = Poison(25, math.nan, above=4e-3)
    whole = make_training(tmp_path / "whole.pt", poison=poison, best=best)
    expected = whole.train()
    assert expected.rollbacks.max() == 2
    with pytest.raises(CrashError):
        make_training(tmp_path / "cut.pt", poison=poison, best=best, die_at=steps_of_life).train()
    resumed = make_training(tmp_path / "cut.pt", poison=poison, best=best)
    history = resumed.train()
    assert torch.equal(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(history[LOGGED], expected[LOGGED])


def test_a_margin_without_a_metric_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"guard\.margin needs a validation metric"):
        make_training(tmp_path / "c.pt", best=None, guard=GuardConfig(margin=1.0)).train()


def test_trouble_again_after_a_roll_back_goes_back_further(tmp_path, caplog):
    """The state of step 20 is good by its metric alone: every step from there fails, until it is left behind."""
    training = make_training(tmp_path / "c.pt", ema_decay=None)
    honest, came_from = training.loss, []

    def fail_after_20(batch, generator):
        if training.state.step == 10:
            came_from.append(training.state.rollbacks)
        return honest(batch, generator) * (
            math.nan if training.state.step == 21 and training.state.rollbacks < 2 else 1.0
        )

    training.loss = fail_after_20
    history = training.train()
    assert "back to step 20, on with 0.5 times the learning rate (roll-back 1 of at most 5)" in caplog.text
    assert "back to step 10, on with 0.5 times the learning rate (roll-back 2 of at most 5)" in caplog.text
    assert came_from == [0, 2]
    assert history.rollbacks.max() == 2
    assert history.step.is_unique
