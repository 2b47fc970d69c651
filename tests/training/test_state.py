"""The state of a training: what a snapshot, a roll-back and a checkpoint keep of it."""

import math
import pickle

import pytest
import torch
from torch import nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.training.guard import TrainingDivergedError
from spatial_functa_pipeline.training.state import TrainingState, copied_to_cpu

CONFIG = TrainingConfig(steps=9, batch_size=1, learning_rate=0.1, ema_decay=0.9)


def start():
    torch.manual_seed(0)
    return TrainingState.at_start(nn.Linear(3, 1), CONFIG, {})


def advance(state, value=1.0):
    """A step along a gradient of ones."""
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    state.optimizer.step()
    state.average.update_parameters(state.model)
    state.loss_sum += value
    state.loss_count += 1
    state.step += 1
    state.record({"loss": value}, seconds=float(state.step))


def content(state):
    """All that a checkpoint holds, as one flat list."""

    def flat(value):
        if isinstance(value, dict):
            return [leaf for key in value for leaf in (key, *flat(value[key]))]
        if isinstance(value, list | tuple):
            return [leaf for part in value for leaf in flat(part)]
        return [value.tolist() if isinstance(value, torch.Tensor) else value]

    return flat(state.to_checkpoint())


def test_a_checkpoint_gives_the_same_state_and_the_same_next_step():
    state, other = start(), start()
    for step in range(4):
        advance(state)
        if step == 1:
            state.keep_as_good(-2.0)
            state.keep_weights()
    state.roll_back()
    advance(state)
    saved = copied_to_cpu(state.to_checkpoint())
    other.load(saved)
    assert content(other) == content(state)
    advance(state, 0.5)
    advance(other, 0.5)
    assert content(other) == content(state)


def test_a_roll_back_restores_weights_moments_average_and_history():
    state = start()
    advance(state)
    state.keep_as_good(1.0)
    expected = content(state)
    for _ in range(3):
        advance(state, -2.0)
    assert content(state) != expected
    state.roll_back()
    assert (state.rollbacks, state.retried) == (1, True)
    state.rollbacks, state.retried = 0, False
    assert content(state) == expected


def test_a_second_roll_back_goes_to_the_good_state_before():
    state = start()
    for value in (1.0, 2.0):
        advance(state)
        state.keep_as_good(value)
    assert [good["step"] for good in state.good] == [1, 2]
    reached = []
    for _ in range(3):
        advance(state)
        state.roll_back()
        reached.append((state.step, state.best_value))
    assert reached == [(2, 2.0), (1, 1.0), (1, 1.0)]


def test_without_a_metric_only_the_last_state_is_kept():
    state = start()
    for _ in range(2):
        advance(state)
        state.keep_as_good(None)
    assert [good["step"] for good in state.good] == [2]
    assert state.best_value == -math.inf


def test_a_snapshot_stays_as_it_is_when_the_training_goes_on():
    state = start()
    advance(state)
    snapshot = state.snapshot()
    before = snapshot["model"]["weight"].clone(), snapshot["average"]["module.weight"].clone()
    advance(state)
    assert torch.equal(snapshot["model"]["weight"], before[0])
    assert torch.equal(snapshot["average"]["module.weight"], before[1])


def test_all_that_is_measured_goes_on_with_the_clock_of_the_checkpoint():
    state, other = start(), start()
    advance(state)
    state.history[-1]["seconds"] = 1000.0
    other.load(state.to_checkpoint())
    assert state.started - other.started == pytest.approx(1000.0, abs=10)


def test_the_error_of_a_training_survives_its_way_between_processes():
    error = pickle.loads(pickle.dumps(TrainingDivergedError("field", "the loss is nan")))
    assert (error.name, str(error)) == ("field", "field: the loss is nan")
