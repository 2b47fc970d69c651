"""Runs, means and deviations of a study, as tables."""

import math

import pytest
from measured import study_of, tables

from spatial_functa_pipeline.studies.runs import MeasuredRun, StudyRun, missing_metrics, runs_of
from spatial_functa_pipeline.studies.tables import (
    markdown,
    measured_on,
    rounded,
    runs_table,
    short_names,
    table_lines,
)

SHAPES = {"latent_shape": ["4x4x8", "8x8x4"]}


def test_runs_have_every_variant_before_the_next_seed():
    study = study_of(vary=SHAPES, seeds=[3, 5])
    assert [(run.variant.parameters["latent_shape"], run.seed) for run in runs_of(study)] == [
        ("4x4x8", 3),
        ("8x8x4", 3),
        ("4x4x8", 5),
        ("8x8x4", 5),
    ]


def test_what_is_given_wins_over_the_study_and_the_seed_over_all():
    (run,) = runs_of(
        study_of(set={"runtime": {"device": "cuda", "compile": "on"}}, variants=[{"name": "x", "set": {"a.b": [1]}}])
    )
    given = {"runtime": {"device": "cpu"}}
    assert run.parameters(given) == {"runtime.device": "cpu", "runtime.compile": "on", "a.b": [1], "seed": 0}


def test_files_are_named_by_runs_and_never_the_same():
    names = ["MLP", "M/LP", "M LP", "M-LP", "x" * 200, "x" * 201, "../up"]
    files = [
        StudyRun(variant, 0).file_name for variant in study_of(variants=[{"name": name} for name in names]).all_variants
    ]
    assert files[0] == "MLP,seed=0"
    assert len({*files}) == len(names)
    assert not [name for name in files if len(name) > 100 or "/" in name or " " in name]


def test_each_run_has_a_row_with_what_it_was_measured_on():
    study = study_of(vary={**SHAPES, "quantisation.bits": [None, 6]}, seeds=[0, 1], set={"diffusion.conditional": True})
    runs, _ = tables(study, psnr=lambda run: 30 + run.seed)
    assert [*runs.columns] == [
        "variant", "name", "seed", "latent_shape", "quantisation.bits",
        "state", "psnr", "psnr_measured_on", "seconds", "folder",
    ]  # fmt: skip
    assert len(runs) == 8
    row = runs.iloc[4]
    assert (row["variant"], row["seed"], row["psnr"]) == ("latent_shape=4x4x8, quantisation.bits=null", 1, 31)
    assert (row["state"], row["psnr_measured_on"], row["quantisation.bits"]) == ("finished", "10 images", "null")


def test_means_and_sample_deviations_are_over_the_seeds_that_have_the_metric():
    study = study_of(vary=SHAPES, seeds=[0, 1, 2], measure=["psnr", "fid"])
    _, results = tables(
        study,
        psnr=lambda run: [30.0, 31.0, 35.0][run.seed],
        fid=lambda run: None if run.variant.parameters["latent_shape"] == "4x4x8" and run.seed else 7.0,
    )
    first, second = (row for _, row in results.iterrows())
    assert first["psnr_mean"] == 32
    assert first["psnr_std"] == pytest.approx(math.sqrt(7))
    assert (first["runs"], first["psnr_n"], first["fid_n"], second["fid_n"]) == (3, 3, 1, 3)
    assert first["fid_mean"] == 7
    assert math.isnan(first["fid_std"])
    assert second["fid_std"] == 0


def test_the_table_for_a_reader():
    study = study_of(
        about="Which is better?",
        variants=[{"name": "MLP", "set": {"classification.architecture": "mlp"}, "vary": SHAPES}, {"name": "a|b"}],
        seeds=[0, 1],
        measure=["psnr", "top1_accuracy"],
    )
    failing = {("MLP, latent_shape=8x8x4", 1): "failed", ("a|b", 0): "failed", ("a|b", 1): "failed"}
    runs, results = tables(study, failing, psnr=lambda run: 30 + run.seed / 7, top1_accuracy=lambda run: 0.5)
    text = markdown(study, runs, results, "the command")
    assert text.splitlines()[:11] == [
        "# A study",
        "",
        "Which is better?",
        "",
        "**Incomplete**: 3 of 6 runs have no results; they are named below.",
        "",
        "| variant | latent shape | psnr | top1 accuracy | seeds |",
        "| --- | --- | ---: | ---: | ---: |",
        "| MLP | 4x4x8 | 30.07 ± 0.10 | 0.5 ± 0 | 2 |",
        "| MLP | 8x8x4 | 30 | 0.5 | 1 |",
        "| a∣b |  | – | – | 0 |",
    ]
    assert "- psnr: measured on 10 images" in text
    assert "Without results:\n\n- a|b, seed=0: failed\n" in text
    assert text.endswith("Made by `the command`.\n")


def test_what_was_measured_on_is_said_once_where_only_numbers_differ():
    scales = [1.0, 2.5, 4.0]
    study = study_of(vary={"diffusion.guidance": scales}, seeds=[0, 1], measure=["fid", "seam", "psnr"])
    measured = [
        MeasuredRun(
            run,
            metrics={"fid": 1.0, "seam": 1.0},
            details={
                "fid": f"1,000 samples, guidance {run.variant.point['diffusion.guidance']}, seed {run.seed}",
                "seam": "reconstructions" if run.variant.point["diffusion.guidance"] == 1 else "10 samples",
            },
        )
        for run in runs_of(study)
    ]
    runs = runs_table(study, measured)
    assert measured_on(study, runs) == [
        "fid: measured on 1,000 samples, guidance 1.0/2.5/4.0, seed 0/1",
        "seam: measured on reconstructions; or on 10 samples",
    ]
    assert len({*runs["fid_measured_on"]}) == 6


def test_of_many_numbers_the_lowest_and_the_highest_are_said():
    study = study_of(vary={"diffusion.guidance": [*range(9)]})
    measured = [
        MeasuredRun(run, metrics={"psnr": 1.0}, details={"psnr": f"10 images, by axis {1000 * (9 - number):,}, 1.5"})
        for number, run in enumerate(runs_of(study))
    ]
    expected = ["psnr: measured on 10 images, by axis 1,000 … 9,000, 1.5"]
    assert measured_on(study, runs_table(study, measured)) == expected


def test_a_table_of_all_runs_is_not_called_incomplete():
    study = study_of(vary=SHAPES)
    assert "Incomplete" not in markdown(study, *tables(study, psnr=lambda run: 30.0), "the command")


def test_seeds_of_a_metric_that_not_all_have_are_said():
    study = study_of(vary=SHAPES, seeds=[0, 1, 2], measure=["psnr", "fid"])
    _, results = tables(study, psnr=lambda run: 30.0, fid=lambda run: None if run.seed == 2 else 5.0 + run.seed)
    assert table_lines(study, results)[2] == "| 4x4x8 | 30 ± 0 | 5.50 ± 0.71 (n = 2) | 3 |"


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [(31.994, 0.33, "31.99"), (12.43, 1.5, "12.4"), (1234.5, 123.0, "1234"), (0.79494, 0.0058, "0.7949"),
     (0.25, math.nan, "0.25"), (30.0, 0.0, "30"), (math.nan, 0.1, "nan")],
)  # fmt: skip
def test_a_mean_has_the_digits_of_its_deviation(mean, deviation, text):
    assert rounded(mean, deviation) == text


def test_names_are_as_short_as_they_can_be():
    keys = ["a.training.steps", "b.training.steps", "latent_shape", "b.gamma"]
    assert [*short_names(keys).values()] == ["a training steps", "b training steps", "latent shape", "gamma"]


def test_a_metric_that_no_run_has_is_found():
    study = study_of(vary=SHAPES, measure=["psnr", "psnrr"])
    measured = [MeasuredRun(run, metrics={"psnr": 1.0, "fid": 2.0}) for run in runs_of(study)]
    assert missing_metrics(study, measured) == (["psnrr"], ["fid", "psnr"])
