"""The benchmark of optimisers: it trains what it says, and prints what it measured."""

import argparse
import json

import optimisers as benchmark
import pytest


def test_contestants_are_read():
    assert benchmark.contestant("Muon:0.3") == ("Muon", 0.3)
    with pytest.raises(argparse.ArgumentTypeError, match="as in Muon:3"):
        benchmark.contestant("SGD:1")


def test_optimisers_and_rates_make_a_difference(tmp_path, capsys):
    path = tmp_path / "rows.json"
    asked = ["--steps", "3", "--contestants", "Adam:1", "Muon:1", "Adam:0", "Muon:0", "--json", str(path)]
    assert benchmark.main(asked) == 0
    adam, muon, *still = (row["psnr"] for row in json.loads(path.read_text()))
    assert len({adam, muon, still[0]}) == 3
    assert still[0] == pytest.approx(still[1], abs=1e-4)  # at a rate of 0 it matters not whose matrices they are
    assert f"{muon:.2f}" in capsys.readouterr().out
