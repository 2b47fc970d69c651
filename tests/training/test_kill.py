"""A field's training which is killed, again and again, ends as the one which was left alone."""

import random
import time
from functools import partial

import pandas as pd
import pytest
import tiny_trainings as tiny
import torch
from processes import start

STEPS = 500


def begin(folder):
    return start(partial(tiny.train_and_store, steps=STEPS), folder / "c.pt", folder / "result.pt")


def wait_for_a_checkpoint_after(process, path, moment):
    while process.is_alive() and not (path.exists() and path.stat().st_mtime_ns > moment):
        time.sleep(0.002)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path):
    """Twice, up to some hundred steps after a checkpoint of the process that is killed."""
    checkpoint = tmp_path / "c.pt"
    for _ in range(2):
        process, begun = begin(tmp_path), time.time_ns()
        wait_for_a_checkpoint_after(process, checkpoint, begun)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.join()
    assert checkpoint.exists()
    killed_in_time = not (tmp_path / "result.pt").exists()
    last = begin(tmp_path)
    last.join()
    assert last.exitcode == 0
    assert killed_in_time

    field, history = tiny.train(tmp_path / "whole.pt", steps=STEPS)
    resumed, resumed_history = torch.load(tmp_path / "result.pt", weights_only=False)
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in field.state_dict().items())
    columns = history.columns.drop("seconds")
    pd.testing.assert_frame_equal(resumed_history[columns], history[columns])


def test_the_field_is_validated_and_kept_with_its_average(tmp_path):
    """The weights that come back score what the history says; without an average they would be others."""
    averaged, history = tiny.train(tmp_path / "a.pt")
    plain, plain_history = tiny.train(tmp_path / "b.pt", ema_decay=None)
    images = tiny.images(16, 1).batch(range(16)) / 255
    for field, rows in ((averaged, history), (plain, plain_history)):
        with torch.no_grad():
            errors = (field(images)[0] - images).square().flatten(1).mean(1)
        assert -10 * errors.log10().mean().item() == pytest.approx(rows.validation_psnr.max(), abs=1e-3)
    assert history.validation_psnr.max() != plain_history.validation_psnr.max()


def test_the_meta_sgd_rates_have_their_own_learning_rate(tmp_path):
    """One step of Adam is as long as the learning rate, which is a tenth for them."""
    ends = [tiny.train(tmp_path / f"{steps}.pt", steps=steps, ema_decay=None)[0] for steps in (1, 2)]
    step = {
        name: (a - b).abs().max().item()
        for (name, a), b in zip(ends[0].named_parameters(), ends[1].parameters(), strict=True)
    }
    assert step["inner_rates"] < 4e-4 < 2e-3 < step["layers.1.weight"]


def test_other_images_of_the_same_number_are_another_training(tmp_path, caplog):
    tiny.train(tmp_path / "c.pt")
    tiny.train(tmp_path / "c.pt", data_seed=5)
    assert "c.pt is of another training (images.digest was " in caplog.text
