"""The benchmark of steadiness: which trainings it compares, what it makes of their curves, and that it can be resumed."""

import json
import math

import pandas as pd
import pytest
import stability as benchmark
import torch
from torch import nn

NAN = math.nan


@pytest.fixture
def settings(tmp_path):
    return benchmark.Settings(steps=20, validate_every=10, threads=1, output=tmp_path)


def test_a_fall_is_measured_from_the_highest_psnr_before_it():
    field = nn.Linear(1, 1)
    points = [(1, 20.0), (2, 25.0), (3, 24.0), (4, 24.5), (5, 22.5), (6, 30.0), (7, 29.0)]
    wanted = {"final_psnr": 29.0, "best_psnr": 30.0, "largest_fall": 2.5, "rollbacks": 1, "finite": True}
    assert benchmark.summarise(points, [5], field) == wanted


def test_a_lost_run_has_neither_final_psnr_nor_fall():
    broken = nn.Linear(1, 1)
    nn.init.constant_(broken.weight, torch.inf)
    curve = [(1, 20.0), (2, 19.0)]
    for points, field in (
        (curve, None),
        (curve, broken),
        ([*curve, (3, NAN)], nn.Linear(1, 1)),
        ([], None),
    ):
        result = benchmark.summarise(points, [], field)
        assert (result["finite"], result["final_psnr"], result["largest_fall"]) == (False, None, None)


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("protection", benchmark.PROTECTIONS)
def test_a_run_is_the_preset_with_one_change(interpolation, protection, settings):
    parameters, config = benchmark.configure(benchmark.Run("preset", interpolation, 3.0, protection, 0), settings)
    preset = parameters.meta_learning
    assert parameters.interpolation == config.field.interpolation == interpolation
    assert config.field == preset.field
    assert config.spectral_penalty.weight == (
        preset.spectral_penalty.weight if protection in ("penalty", "both") else 0.0
    )
    assert config.training.guard == (preset.training.guard if protection in ("guard", "both") else None)
    assert config.training.learning_rate == pytest.approx(3 * preset.training.learning_rate)
    assert (config.training.steps, config.training.validate_every) == (20, 10)
    share = preset.training.warmup_steps / preset.training.steps
    assert config.training.warmup_steps == round(20 * share)
    changed = {"steps", "validate_every", "learning_rate", "guard", "warmup_steps"}
    assert config.training.model_dump(exclude=changed) == preset.training.model_dump(exclude=changed)


@pytest.mark.parametrize("recipe", benchmark.RECIPES)
def test_a_recipe_is_what_its_name_says(recipe, settings):
    _, config = benchmark.configure(benchmark.Run(recipe, "nearest", 1.0, "both", 0), settings)
    _, preset = benchmark.configure(benchmark.Run("preset", "nearest", 1.0, "both", 0), settings)
    field, factors = config.field, config.learning_rate_factors
    assert config.training == preset.training
    assert config.spectral_penalty == preset.spectral_penalty
    if recipe == "preset":
        assert config == preset
        return
    assert field.first_step == ("tied" if "tied" in recipe else "free")
    assert field.initialisation == ("data" if "data" in recipe else "random")
    assert factors.siren == (3 if "tripled" in recipe else 1)
    assert factors.modulation == factors.inner_rates == (1 if recipe in ("tied", "deep-vector-tied") else 3)
    assert config.training_inner_steps == (None if "tied" in recipe else 2)
    if "deep" in recipe:
        assert (field.latent_shape.grid, field.depth, field.omega0) == ((1, 1), 15, 30)
    else:
        own = {"first_step", "kernel_size", "inner_steps", "overlap"}
        assert field.model_dump(exclude=own) == preset.field.model_dump(exclude=own)
        assert (field.kernel_size, field.inner_steps) == (1, 3)
    assert (config.hidden_optimizer, factors.hidden, config.jitter.share, field.overlap) == ("adam", None, 0, 0)
    assert field.width == 64


def test_a_run_trains_the_embedded_images(settings):
    run = benchmark.Run("preset", "nearest", 1.0, "both", 0)
    settings = benchmark.Settings(4, 2, 1, settings.output)
    benchmark.train_all([run], settings)
    result = benchmark.finished(run, settings)
    assert [step for step, _ in result["curve"]] == [2, 4]
    assert result["outcome"] == "finished"
    assert result["finite"]
    assert result["final_psnr"] == result["curve"][-1][1]
    assert result["largest_spectral_radius"] > 0
    assert result["true_spectral_radius"] > 0
    assert 0 <= result["share_beyond_2"] <= 1


def test_what_is_not_finite_is_not_the_last():
    assert benchmark.last_finite([1.0, 2.0, math.inf]) == 2.0
    assert benchmark.last_finite([NAN]) is None


def fake_result(run, psnr=30.0, finite=True):
    return {
        **benchmark.asdict(run),
        "final_psnr": psnr if finite else None,
        "largest_fall": 0.1 if finite else None,
        "rollbacks": 1,
        "finite": finite,
        "true_spectral_radius": 1.5,
        "share_beyond_2": 0.0,
        "rolled_back_at": [10],
        "curve": [[10, 20.0], [20, psnr if finite else None]],
    }


@pytest.fixture
def trained(monkeypatch):
    """`train` without training; returns the runs that it was asked for."""
    runs = []

    def train(run, settings, images):
        runs.append(run)
        result = fake_result(run, psnr=30 + run.seed / 10, finite=run.protection != "plain")
        return {**result, "seconds": 1.0}

    monkeypatch.setattr(benchmark, "train", train)
    monkeypatch.setattr(benchmark, "load_images", lambda interpolation, name: None)
    threads = torch.get_num_threads()
    yield runs
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_command_runs_what_is_missing_and_reports_all(trained, tmp_path, capsys):
    arguments = ["--seeds", "0", "1", "--rates", "1/3", "1", "--steps", "20", "--output", str(tmp_path / "runs")]
    assert benchmark.main([*arguments, "--json", str(tmp_path / "all.json")]) == 0
    assert len(trained) == len(set(trained)) == 2 * 2 * 2 * 4
    assert sorted({run.rate for run in trained}) == pytest.approx([1 / 3, 1.0])
    objects = json.loads((tmp_path / "all.json").read_text())
    assert len(objects) == len(pd.read_csv(tmp_path / "runs/stability.csv")) == 32
    assert (tmp_path / "runs/stability.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "kept: nearest, preset's rate: no spread of the seeds' PSNR above 0.5 dB (0.10 dB)" in printed

    trained.clear()
    (tmp_path / "runs/preset-linear-rate1-both-seed1.json").unlink()
    assert benchmark.main(arguments) == 0
    assert trained == [benchmark.Run("preset", "linear", 1.0, "both", 1)]


def test_recipes_have_rows_of_their_own_and_promise_nothing(trained, tmp_path, capsys):
    one_each = ["--seeds", "0", "--rates", "1", "--interpolations", "nearest", "--protections", "both"]
    assert benchmark.main([*one_each, "--recipes", "free", "tied", "--output", str(tmp_path)]) == 0
    assert trained == [benchmark.Run(recipe, "nearest", 1.0, "both", 0) for recipe in ("free", "tied")]
    assert list(pd.read_csv(tmp_path / "stability.csv").recipe) == ["free", "tied"]
    assert not {"kept", "BROKEN"} & set(capsys.readouterr().out.replace(":", " ").split())


def test_results_of_other_settings_are_not_taken(trained, tmp_path, capsys):
    arguments = ["--seeds", "0", "--rates", "1", "--output", str(tmp_path)]
    assert benchmark.main([*arguments, "--steps", "20"]) == 0
    assert benchmark.main([*arguments, "--steps", "30"]) == 1
    assert "made with other parameters or steps" in capsys.readouterr().err


def test_broken_promises_are_named():
    kept = [fake_result(benchmark.Run("preset", "nearest", 1.0, "both", seed)) for seed in (0, 1)]
    assert all(line.startswith("kept") for line in benchmark.verdicts(benchmark.aggregate(kept)))

    apart = [kept[0], {**kept[1], "final_psnr": 30.6}]
    assert sum(line.startswith("BROKEN") for line in benchmark.verdicts(benchmark.aggregate(apart))) == 1

    fallen = [kept[0], {**kept[1], "largest_fall": 0.6}]
    assert sum(line.startswith("BROKEN") for line in benchmark.verdicts(benchmark.aggregate(fallen))) == 1

    lost = [kept[0], fake_result(benchmark.Run("preset", "nearest", 1.0, "both", 1), finite=False)]
    assert all(line.startswith("BROKEN") for line in benchmark.verdicts(benchmark.aggregate(lost)))

    unprotected = [fake_result(benchmark.Run("preset", "nearest", 1.0, "plain", 0), finite=False)]
    assert benchmark.verdicts(benchmark.aggregate(unprotected)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "--processes must be at least 1"),
        (["--rates", "0"], "--rates must be positive"),
        (["--json", "/nowhere/at/all.json"], "there is no folder"),
    ],
)
def test_wrong_command_lines_say_what_to_do(arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert message in capsys.readouterr().err
