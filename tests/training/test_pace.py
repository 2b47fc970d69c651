"""A training that takes days says so at its beginning."""

import logging

import pytest
from tiny_trainings import train

from spatial_functa_pipeline.training import pace
from spatial_functa_pipeline.training.pace import Pace


class Clock:
    """Time that passes by a step."""

    def __init__(self, first, later):
        self.now, self.first, self.later = 0.0, first, later

    def monotonic(self):
        return self.now

    def days(self, steps, start=0, count=40):
        paced, found = Pace(steps), []
        for step in range(start + 1, start + 1 + count):
            self.now += self.first if step <= start + 2 else self.later
            found.append(paced.days_left(step))
        return {step: days for step, days in zip(range(start + 1, start + 1 + count), found, strict=True) if days}


@pytest.fixture
def clock(monkeypatch):
    def start(first=100.0, later=6.0):
        made = Clock(first, later)
        monkeypatch.setattr(pace, "time", made)
        return made

    return start


def test_days_are_said_once_after_some_steps_and_the_first_ones_do_not_count(clock):
    assert clock().days(50_000) == {10: pytest.approx(6 * 49_990 / 86_400)}  # 3.5 days


def test_a_training_that_goes_on_says_what_is_left(clock):
    assert clock().days(50_000, start=20_000) == {20_010: pytest.approx(6 * 29_990 / 86_400)}


def test_less_than_a_day_is_not_said(clock):
    assert clock(later=1.7).days(50_000) == {}
    assert clock(later=1.8).days(50_000) != {}
    assert clock().days(50_000, count=9) == {}


def test_a_training_warns_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pace, "_DAY", 1e-9)
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "a.pt", steps=14)
    (message,) = [record.message for record in caplog.records if "days" in record.message]
    assert message.startswith("field: about ")
    assert " days on this CPU at this rate: fewer steps, a smaller width or a faster device" in message
