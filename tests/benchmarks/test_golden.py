"""The comparison of two runs notices any digit, and nothing but results."""

import json

import golden
import pandas as pd
import pytest


def write(data, place="4x4x8-nearest", psnr=20.125, rate=1e-3, seconds=1.0, **more):
    for name in golden.HISTORIES:
        path = data / "06_models/test_run" / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"step": [1, 2], "loss": [0.5, rate], "seconds": seconds}).to_csv(path, index=False)
    path = data / "08_reporting/test_run" / place / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"psnr": psnr, "details": {"psnr": "100 images"}, **more}))
    return str(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "equal to the digit"),
        ({"seconds": 2.0, "place": "elsewhere/again"}, "equal to the digit"),
        ({"kid": 0.1}, "new in metrics.json: kid"),
        ({"psnr": 20.125000000000004}, "psnr: 20.125 before, 20.125000000000004 after"),
        ({"rate": 1.0000000000000002e-3}, "field_history.csv: loss differs"),
    ],
)
def test_what_differs_is_said(tmp_path, capsys, change, said):
    differs = "psnr" in change or "rate" in change
    assert golden.main([write(tmp_path / "before"), write(tmp_path / "after", **change)]) == differs
    assert said in capsys.readouterr().out


def test_a_metric_that_is_gone_is_a_difference(tmp_path, capsys):
    assert golden.main([write(tmp_path / "before", kid=0.1), write(tmp_path / "after")]) == 1
    assert "kid: 0.1 before, None after" in capsys.readouterr().out


def test_one_run_is_needed(tmp_path):
    with pytest.raises(SystemExit, match=r"0 files field_history.csv of test_run"):
        golden.main([str(tmp_path), str(tmp_path)])
