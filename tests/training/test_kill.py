"""A field's training which is killed, again and again, ends as the one which was left alone."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny_trainings as tiny
import torch

STEPS = 1000


def start(folder):
    script = Path(tiny.__file__)
    arguments = [str(folder / "c.pt"), str(folder / "result.pt"), str(STEPS)]
    return subprocess.Popen([sys.executable, script, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_a_checkpoint_after(process, path, moment):
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > moment):
        time.sleep(0.002)


def test_kill_9_at_random_moments(tmp_path):
    """Twice, up to some hundred steps after a checkpoint of the process that is killed."""
    checkpoint = tmp_path / "c.pt"
    for _ in range(2):
        process, begun = start(tmp_path), time.time_ns()
        wait_for_a_checkpoint_after(process, checkpoint, begun)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.wait()
    assert checkpoint.exists()
    killed_in_time = not (tmp_path / "result.pt").exists()
    assert start(tmp_path).wait() == 0
    assert killed_in_time

    field, history = tiny.train(tmp_path / "whole.pt", steps=STEPS)
    result = torch.load(tmp_path / "result.pt")
    assert all(torch.equal(result["weights"][name], value) for name, value in field.state_dict().items())
    resumed = pd.DataFrame(result["history"]).drop(columns="seconds")
    pd.testing.assert_frame_equal(resumed, history.drop(columns="seconds"))


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
    assert "was made with another images: starting anew" in caplog.text
