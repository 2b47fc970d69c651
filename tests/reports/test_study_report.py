"""The page of a study, from what is handed to it."""

import pytest
from html_pages import check_page, look_at, needs_chromium
from pictures import png

from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.reports.page import Picture, facts
from spatial_functa_pipeline.reports.study import StudyReport
from spatial_functa_pipeline.studies.runs import MeasuredRun, runs_of
from spatial_functa_pipeline.studies.tables import results_table, runs_table

STUDY = StudyConfig(
    title="Dropout & the classifier",
    about="What does dropout do?\n\nThe paper has it in Tab. 5.",
    vary={"classification.dropout": [0.0, 0.5, 0.9]},
    seeds=[0, 1],
    outputs=["classification_metrics"],
    measure=["top1_accuracy", "psnr"],
)


def study_report():
    measured = []
    for run in runs_of(STUDY):
        dropout = run.variant.point["classification.dropout"]
        if dropout == 0.9:
            measured.append(MeasuredRun(run, "failed"))
            continue
        metrics = {"top1_accuracy": 0.8 + dropout / 10 + run.seed / 100, "psnr": 30.0}
        measured.append(MeasuredRun(run, metrics=metrics, details={"psnr": "100 test images"}, seconds=90))
    runs = runs_table(STUDY, measured)
    first, second, _ = (variant.label for variant in STUDY.all_variants)
    return StudyReport(
        study=STUDY,
        dataset="test_run",
        measured=measured,
        runs=runs,
        results=results_table(STUDY, runs),
        figure=Picture("Results of the study", "", png(700, 300)),
        pictures={
            first: [Picture("Reconstructions", "Of both.", png()), Picture("Samples", "", png(500, 500))],
            second: [Picture("Reconstructions", "Of both.", png()), Picture("Samples", "", png(600, 600))],
        },
        links={f"{first}, seed=0": "../../../08_reporting/test_run/4x4x8-nearest/report.html"},
        about=facts("none"),
        commands=["kedro study dropout --env test"],
        definition="title: Dropout & the classifier\n",
    )


def test_the_page_is_well_formed_and_says_all():
    html = study_report().to_html()
    text = check_page(html)
    for words in (
        "report of a study · test_run Dropout & the classifier What does dropout do? The paper has it in Tab. 5.",
        "dropout top1 accuracy psnr seeds 0.0 0.8050 ± 0.0071 30 ± 0 2",
        "0.9 – – 0",
        "Mean ± sample deviation over seeds. psnr: measured on 100 test images",
        "Without results: classification.dropout=0.9, seed=0: failed classification.dropout=0.9, seed=1: failed",
        "seed top1 accuracy psnr time run 0 0.8 30 1 min 30 s finished: report 1 0.81 30 1 min 30 s finished",
        "Reconstructions: the same as of classification.dropout=0.0.",
        "kedro study dropout --env test",
    ):
        assert words in text
    assert html.count("<img ") == 4
    assert html.count('href="../../../08_reporting/test_run/4x4x8-nearest/report.html"') == 1


@needs_chromium
@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(tmp_path):
    found = look_at(study_report().to_html(), tmp_path, 390)
    assert found == {"width": 390, "wider": 0, "broken": 0, "images": 4}
