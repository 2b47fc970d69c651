"""Two processes train what one would, and nothing is lost when they are interrupted or one of them dies."""

import multiprocessing
import os
import signal
import socket

import pandas as pd
import pytest
import tiny_trainings as tiny
import torch
from processes import start
from together import train_all
from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError
from torch.distributed.launcher import api as launcher

from spatial_functa_pipeline.compute import DeviceError
from spatial_functa_pipeline.hooks.advice_table import ADVICE, advice_on
from spatial_functa_pipeline.images.images import ImagesError
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.guard import TrainingDivergedError, UnreadableImageError
from spatial_functa_pipeline.training.launch import MachinesDidNotMeetError, ProcessDiedError
from spatial_functa_pipeline.training.run import TrainingRun

pytestmark = pytest.mark.slow

TWO = tiny.RUNTIME.model_copy(update={"processes": 2})
NAMES = ["field", "shaky", "classifier", "denoiser", "dit"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The field, trained by one process without a break, and its history."""
    return tiny.train(tmp_path_factory.mktemp("whole") / "c.pt")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tiny.write_functasets(tmp_path_factory.mktemp("alone"))
    return train_all(folder, run=TrainingRun(0, tiny.RUNTIME, Checkpoint(folder / "field.pt")))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes made, which went on with a field that one had begun; and the journal of that field."""
    folder = tiny.write_functasets(tmp_path_factory.mktemp("together"))
    begin(folder / "field.pt")
    run = TrainingRun(0, TWO, Checkpoint(folder / "field.pt"), tiny.Journal(folder / "journal"))
    return train_all(folder, run=run), (folder / "journal").read_text()


def begin(path):
    """The checkpoint of a field which one process began to train and was stopped by Ctrl-C."""
    with pytest.raises(KeyboardInterrupt):
        tiny.train(path, report=tiny.Journal(path.with_name("begun"), os.getpid(), signal.SIGINT, interrupt_at=10))


def assert_same(result, expected):
    (model, history, *guides), (other, other_history, *other_guides) = result, expected
    for guide, other_guide in zip(guides, other_guides, strict=True):
        assert (guide is None) == (other_guide is None)
        if guide is not None:
            assert_same((guide, history), (other_guide, other_history))
    expected_weights = dict(other.named_parameters())
    for name, value in model.named_parameters():
        both = torch.stack([value, expected_weights[name]]).detach()
        if name.endswith("qkv.bias"):  # that of the keys has no gradient but rounding errors, and Adam scales them up
            both = both.unflatten(1, (3, -1))[:, [0, 2]]
        torch.testing.assert_close(*both, rtol=0, atol=1e-5)
    columns = [name for name in other_history if name != "seconds"]
    pd.testing.assert_frame_equal(history[columns], other_history[columns], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_end_with_the_weights_and_history_of_one(alone, together, name):
    """With dropout, noise and dropped labels, in micro-batches that do not divide a process's part."""
    assert_same(together[0][name], alone[name])
    assert name != "denoiser" or alone[name][2] is not None  # which has a guide


def test_the_processes_roll_back_together(together):
    assert together[0]["shaky"][1].rollbacks.max() >= 1


def test_only_one_of_them_reports(together):
    """The rows of the checkpoint once more, then each of the others once."""
    steps = [int(line.split()[0]) for line in together[1].splitlines()]
    assert steps == [5, 10, 15, 20, 25, 30]


def test_ctrl_c_stops_both_at_the_same_step_and_one_goes_on(tmp_path, whole):
    checkpoint = tmp_path / "c.pt"
    report = tiny.Journal(tmp_path / "journal", os.getpid(), signal.SIGINT, interrupt_at=10)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(checkpoint, TWO, report)
    assert 10 <= torch.load(checkpoint)["state"]["step"] <= 30
    assert multiprocessing.active_children() == []
    assert_same(tiny.train(checkpoint), whole)


def test_a_killed_process_ends_the_training_with_its_name_and_the_checkpoint_is_kept(tmp_path, whole):
    checkpoint = tmp_path / "c.pt"
    with pytest.raises(
        ProcessDiedError, match=r"process 1 of 2 \(pid \d+\) died: Signal 9 \(SIGKILL\).*checkpoint is kept"
    ):
        tiny.train(checkpoint, TWO, spoil=tiny.Spoil(rank=1, at=18, how="die"))
    assert torch.load(checkpoint)["state"]["step"] == 16
    assert multiprocessing.active_children() == []
    assert_same(tiny.train(checkpoint), whole)


def test_a_failing_process_ends_the_training_with_its_error(tmp_path):
    with pytest.raises(ProcessDiedError, match=r"process 1 of 2 .* died: ValueError: cannot decode the image number 7"):
        tiny.train(tmp_path / "c.pt", TWO, spoil=tiny.Spoil(rank=1, at=6, how="fail"))
    assert Checkpoint(tmp_path / "c.pt").path.exists()


def test_an_error_of_a_process_is_handed_over_with_the_advice_on_it(tmp_path):
    """Its words alone would not tell of what kind it was."""
    with pytest.raises(ProcessDiedError, match="died: DeviceError: no such device") as caught:
        tiny.train(tmp_path / "c.pt", TWO, spoil=tiny.Spoil(1, at=6, how="fail", error=DeviceError("no such device")))
    assert isinstance(caught.value.__cause__, DeviceError)
    assert advice_on(caught.value) == ADVICE[DeviceError]


def test_an_image_that_one_process_cannot_read_stops_both_with_a_checkpoint(tmp_path, whole):
    """Process 1, which does not save, two steps after the last checkpoint. The repaired image is gone on with."""
    checkpoint = tmp_path / "c.pt"
    spoil = tiny.Spoil(1, at=20, how="fail", error=ImagesError("cannot decode the image 7.png"))
    with pytest.raises(UnreadableImageError, match=r"^field: stopped at step 18, with a checkpoint: cannot .* 7\.png$"):
        tiny.train(checkpoint, TWO, spoil=spoil)
    saved = torch.load(checkpoint)
    assert saved["state"]["step"] == 18
    assert saved["unreadable_image"]
    assert multiprocessing.active_children() == []
    assert_same(tiny.train(checkpoint), whole)


def test_a_validation_image_that_cannot_be_read_stops_both_with_a_checkpoint(tmp_path, whole):
    """Only the first process validates. The step is measured by the training that goes on."""
    checkpoint = tmp_path / "c.pt"
    spoil = tiny.Spoil(0, at=2, how="fail", error=ImagesError("cannot decode the image 7.png"))
    with pytest.raises(UnreadableImageError, match="stopped at step 20, with a checkpoint"):
        tiny.train(checkpoint, TWO, spoil_validation=spoil)
    assert multiprocessing.active_children() == []
    assert_same(tiny.train(checkpoint), whole)


def test_a_training_that_diverges_in_both_raises_the_error_of_one(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"^field: the loss is nan at step 4\."):
        tiny.train(tmp_path / "c.pt", TWO, learning_rate=1e30, guard=None)


def test_a_machine_that_meets_no_other_says_where_it_waited(tmp_path, monkeypatch):
    def wait_in_vain(*arguments):
        raise RendezvousTimeoutError

    monkeypatch.setattr(launcher, "elastic_launch", lambda *arguments: wait_in_vain)
    runtime = tiny.RUNTIME.model_copy(update={"machines": 2, "rendezvous": "127.0.0.1:9"})
    with pytest.raises(MachinesDidNotMeetError, match=r"the 2 machines did not meet at 127\.0\.0\.1:9"):
        tiny.train(tmp_path / "c.pt", runtime)


def test_two_machines_end_with_the_same(tmp_path, whole):
    """Two launches on this one, each with one process; only one of them has the checkpoint."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    runtime = tiny.RUNTIME.model_copy(update={"machines": 2, "rendezvous": f"127.0.0.1:{port}"})
    folders = [tmp_path / "a", tmp_path / "b"]
    machines = []
    for folder in folders:
        folder.mkdir()
        machines.append(start(tiny.train_and_store, folder / "c.pt", folder / "result.pt", runtime))
    for machine in machines:
        machine.join()
    assert [machine.exitcode for machine in machines] == [0, 0]
    for folder in folders:
        assert_same(torch.load(folder / "result.pt", weights_only=False), whole)
    assert sum((folder / "c.pt").exists() for folder in folders) == 1
