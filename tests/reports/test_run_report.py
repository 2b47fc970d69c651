"""The page of a run, from what is handed to it."""

from dataclasses import replace

import jinja2
import numpy as np
import pandas as pd
import pytest
from html_pages import check_page, look_at, needs_chromium
from pictures import png

from spatial_functa_pipeline.reports.comparisons import comparisons
from spatial_functa_pipeline.reports.page import Picture, Sheet, checkout, facts, number, render
from spatial_functa_pipeline.reports.run import RunReport, Section

METRICS = {
    "psnr": 33.239906,
    "psnr_pca": 26.183,
    "top1_accuracy": 0.862,
    "frechet_distance_convnet_to_test": 1.338,
    "frechet_distance_convnet_train_images_to_test": 0.383,
    "frechet_distance_convnet_noise_to_test": 48.797,
    "fid_to_train": 16.5,
    "fid_noise_to_train": 300.0,
    "near_copies": 0.0,
    "seam_ratio_samples": 1.197,
    "seam_ratio_test_images": 1.054,
    "something_else": 7,
    "details": {"psnr": "1000 test images, seed 0, dB", "fid_to_train": "50000 samples, to 50000 training images"},
}
PICTURE = Picture("Reconstructions", "Test images & what becomes of them.", png())
WIDE = Sheet.of("Classes", "By class.", pd.DataFrame({f"a_long_column_{i}": np.arange(3) / 7 for i in range(20)}))
REPORT = RunReport(
    dataset="my_<b>images</b>",
    variant="8x8x8-nearest",
    changed={"diffusion.normalisation.gamma": 2.5, "evaluation.sampling.guidance_scale": None},
    metrics=METRICS,
    sections=[Section("Reconstructions", [PICTURE]), Section("Scores of the samples", [PICTURE], [WIDE])],
    parameters={"seed": 0, "diffusion": {"unet": {"channels": 32}}, "data": {"resolution": [32, 32]}},
    about=facts("a" * 40),
    commands=["kedro run --params diffusion.normalisation.gamma=2.5,a.very.long.key.that.goes.on=and.on.and.on.and.on"],
    files={"data/08_reporting/my_images/8x8x8-nearest": ["metrics.json"]},
)


def test_the_page_is_well_formed_self_contained_and_says_all():
    html = REPORT.to_html()
    text = check_page(html)
    for words in (
        "my_<b>images</b> · 8x8x8-nearest",  # its tags are text
        "diffusion.normalisation.gamma=2.5",
        "evaluation.sampling.guidance_scale=null",
        "33.24 dB 26.18 dB PCA codes of as many numbers 1000 test images, seed 0, dB",
        "Test images & what becomes of them.",
        "All 12 numbers",
        "something_else 7",
        "unet.channels 32",
        "resolution [32, 32]",
        "kedro run --params diffusion.normalisation.gamma=2.5",
        "data/08_reporting/my_images/8x8x8-nearest : metrics.json",
        "Python 3.",
    ):
        assert words in text
    assert html.count("<img ") == 2
    assert "Left out" not in text


def test_what_is_stale_is_named():
    text = check_page(replace(REPORT, left_out={"samples_by_class": "gamma was 1, is 2"}).to_html())
    assert "Left out, because it was made from something else than what is now: samples_by_class : gamma was 1" in text


def test_numbers_stand_beside_their_reference_points():
    rows = {one.metric: one for one in comparisons(METRICS)}
    assert list(rows) == [
        *("psnr", "top1_accuracy", "fid_to_train", "frechet_distance_convnet_to_test"),
        *("seam_ratio_samples", "near_copies"),
    ]
    assert rows["frechet_distance_convnet_to_test"].beside == (
        ("0.383", "as many real training images"),
        ("48.8", "decoded noise"),
    )
    assert rows["fid_to_train"].beside == (("300", "decoded noise"),)
    assert rows["fid_to_train"].measured_on == "50000 samples, to 50000 training images"
    assert rows["near_copies"].beside == (("0.01", "the test images"),)
    assert rows["top1_accuracy"].beside == ()
    assert list(comparisons({"details": {}})) == []


@pytest.mark.parametrize("features", ["convnet", "convnet_large", "inception_0a1b2c3d"])
def test_an_interval_stands_below_its_number_whatever_the_features(features):
    name = f"frechet_distance_{features}_to_test"
    noise = f"frechet_distance_{features}_noise_to_test"
    metrics = {name: 1.338, noise: 48.8, "details": {}, "intervals": {name: [1.2, 1.5], noise: [47.5, 50.0]}}
    (row,) = comparisons(metrics)
    assert (row.metric, row.value, row.interval) == (name, "1.338", "1.2 to 1.5")
    assert row.beside == (("48.8", "decoded noise"),)
    text = check_page(replace(REPORT, metrics=metrics).to_html())
    assert "1.338 1.2 to 1.5" in text
    assert f"{noise} 48.8 47.5 to 50" in text


def test_a_section_without_anything_measured_is_left_out():
    empty = Sheet.of("Classes", "", pd.DataFrame({"class": [], "accuracy": []}))
    sections = [Section("Classification", [PICTURE], [empty]), Section("Nothing")]
    text = check_page(replace(REPORT, sections=sections, metrics={"details": {}}).to_html())
    assert "Classification" not in text
    assert "Nothing" not in text
    assert not Section("Some", [PICTURE], [empty, WIDE]).is_empty


def test_a_table_has_numbers_as_numbers_and_no_empty_columns():
    table = pd.DataFrame({"class": ["a", "b"], "most_often": [1.0, np.nan], "of": [1234, 5], "empty": [None, np.nan]})
    sheet = Sheet.of("Classes", "", table)
    assert sheet.header == ("class", "most often", "of")
    assert sheet.rows == (("a", "1", "1,234"), ("b", "", "5"))
    assert sheet.numeric == (False, True, True)
    assert not sheet.is_long
    long = Sheet.of("Long", "", pd.DataFrame({"a": range(13)}))
    assert long.is_long
    text = check_page(replace(REPORT, sections=[Section("Some", [], [long])]).to_html())
    assert "Long (13 rows)" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.0001235"),
        (3, "3"),
        (12345, "12,345"),
        (None, ""),
        (float("nan"), ""),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_numbers_as_they_are_written(value, text):
    assert number(value) == text


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="'Samples' is no PNG"):
        Picture("Samples", "", b"GIF89a")
    assert PICTURE.size == (1920, 384)


def test_a_commit_is_checked_out_only_if_it_was_all():
    assert checkout("a" * 40) == ["git checkout " + "a" * 40]
    assert checkout("a" * 40 + "+") == checkout("none") == checkout("unknown") == []
    assert facts("ab+")["commit"] == "ab, with changes that are not committed"


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("run.html", report=REPORT)


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(tmp_path, width):
    assert look_at(REPORT.to_html(), tmp_path, width) == {"width": width, "wider": 0, "broken": 0, "images": 2}
