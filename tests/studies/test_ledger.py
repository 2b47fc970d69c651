"""The page of claims: the rules of `conf/claims.yml` fit every study that there is, and the page says what the tables say."""

import re
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from omegaconf import OmegaConf

from spatial_functa_pipeline.claims_command import claims, page_of, read_claims
from spatial_functa_pipeline.config.claims import Rows
from spatial_functa_pipeline.studies.claims import Answer, judge, read_tables
from spatial_functa_pipeline.studies.ledger import Environment, rule_in_words, verdicts
from spatial_functa_pipeline.studies.runs import MeasuredRun, runs_of
from spatial_functa_pipeline.studies.tables import runs_table
from spatial_functa_pipeline.study_plan import read_study, studies_of

ROOT = Path(__file__).parents[2]
CONFIG = read_claims(ROOT / "conf/claims.yml")
ENVIRONMENTS = sorted(path.parent.name for path in (ROOT / "conf").glob("*/studies"))


def environment(name, folder, value=lambda metric, row, run: 1.0):
    """One whose studies have all been run: `value` makes each metric of each row."""
    studies = {study: read_study(file) for study, file in studies_of(ROOT / "conf", name).items()}
    for study_name, study in studies.items():
        measured = [
            MeasuredRun(run, metrics={metric: value(metric, number, run) for metric in study.measure})
            for number, run in enumerate(runs_of(study))
        ]
        path = folder / study_name / "runs.csv"
        path.parent.mkdir(parents=True)
        runs_table(study, measured).to_csv(path, index=False)
        path.with_name("study.yml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    dataset = OmegaConf.load(ROOT / "conf" / name / "globals.yml").dataset
    return Environment(name, dataset, frozenset(studies), *read_tables(folder, studies))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """All environments that have studies, with made-up tables of all of them."""
    return {name: environment(name, tmp_path_factory.mktemp(name)) for name in ENVIRONMENTS}


@pytest.mark.parametrize("claim", CONFIG.claims, ids=lambda claim: claim.claim)
def test_a_claim_can_be_measured_on_the_papers_data_set(claim, measured):
    own = measured[claim.environment]
    assert set(claim.rule.studies) <= own.studies
    verdict = judge(claim.rule, own.tables)
    assert verdict.answer != Answer.NOT_MEASURED, verdict.numbers


def clearly_apart(metric, row, run):
    """Far from each other for any two variants, the same way for all metrics; the seeds of one are close together."""
    place = zlib.crc32(run.variant.label.encode()) / 2**32
    return (30 + place if metric == "psnr" else 100 * place) + 1e-4 * run.seed


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    names = {claim.environment for claim in CONFIG.claims}
    return {name: environment(name, tmp_path_factory.mktemp(name), clearly_apart) for name in names}


@pytest.mark.parametrize("claim", CONFIG.claims, ids=lambda claim: claim.claim)
def test_where_the_effect_is_clear_every_claim_can_be_told_on_the_papers_data_set(claim, clear):
    verdict = judge(claim.rule, clear[claim.environment].tables)
    assert verdict.answer in (Answer.HOLDS, Answer.DOES_NOT_HOLD), verdict.numbers


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_rule_is_at_a_loss_before_the_tables_of_an_environment(name, measured):
    for claim in CONFIG.claims:
        judge(claim.rule, measured[name].tables)  # which of several rows is meant is not known: an error


def test_most_claims_can_be_measured_on_the_embedded_images(measured):
    answers = [judge(claim.rule, measured["sample"].tables).answer for claim in CONFIG.claims]
    assert answers.count(Answer.NOT_MEASURED) <= 5


def test_where_names_what_a_study_varies():
    """A key that is misspelled would find no row, or, beside null, all of them."""
    varied = {
        "name",
        *(
            key
            for env in ENVIRONMENTS
            for file in studies_of(ROOT / "conf", env).values()
            for key in read_study(file).varied
        ),
    }
    for claim in CONFIG.claims:
        parts = [getattr(claim.rule, name, None) for name in ("of", "than", "spread")]
        keys = {key for rows in parts if isinstance(rows, Rows) for key in rows.where}
        assert keys <= varied, claim.claim


def test_the_page_that_is_there_has_every_claim_and_its_rule():
    page = " ".join((ROOT / "docs/claims.md").read_text().split())
    for number, claim in enumerate(CONFIG.claims, 1):
        assert f"### {number}. {claim.claim.rstrip('.')}" in page
        assert f"Rule: {rule_in_words(claim.rule)}" in page
        assert f"The paper ({claim.source}): {claim.paper}." in page
    assert len(re.findall(r"(?:^| )### \d+\.", page)) == len(CONFIG.claims)


def test_the_page_says_on_which_data_a_claim_holds(tmp_path):
    own = Environment("cifar10", "cifar10", frozenset({"latent_shapes", "vector_functa", "bits"}), {})
    small = environment("sample", tmp_path, lambda metric, row, run: 1.0 if metric == "psnr" else 100.0 - row)
    page = page_of(CONFIG, [own, small])
    section = page.split("### 5. ")[1].split("### 6. ")[0]
    assert "At similar PSNR, spatial functa are classified better than vector functa" in section
    assert (
        "- not measured on CIFAR-10, the paper's data set: `kedro study latent_shapes --env cifar10` and\n"
        "  `kedro study vector_functa --env cifar10`." in section
    )
    assert "on embedded Fashion-MNIST." in section
    assert re.search(r"^\| 5 \| .* \| not measured on CIFAR-10 \| \*\*.*\*\* on embedded Fashion-MNIST \|$", page, re.M)
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


def test_verdicts_leave_out_where_nothing_could_be_measured():
    claim = CONFIG.claims[0]
    nothing = Environment("other", "other", frozenset({"dropout"}), {"dropout": []})
    own = Environment(claim.environment, "cifar10", frozenset(), {})
    assert [one for one, _ in verdicts(claim, [nothing, own])] == [own]


@pytest.fixture
def project(tmp_path):
    """A project's configuration, without outputs."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


def run_claims(project, *options):
    return CliRunner().invoke(claims, options, obj=SimpleNamespace(project_path=project))


def test_without_any_table_no_page_is_written(project):
    found = run_claims(project)
    assert found.exit_code == 1
    assert "no study has been run yet" in found.output
    assert not (project / "docs").exists()


def test_the_command_writes_the_page(project):
    environment("sample", project / "data/09_studies/fashion_mnist_sample")
    found = run_claims(project)
    assert found.exit_code == 0, found.output
    assert "not measured" in found.output
    assert "**holds** on embedded Fashion-MNIST" in (project / "docs/claims.md").read_text()
    assert run_claims(project, "--output", str(project / "other/page.md")).exit_code == 0
    assert (project / "other/page.md").read_text() == (project / "docs/claims.md").read_text()


def test_what_was_run_of_another_study_is_to_be_run_again(project):
    environment("cifar10", project / "data/09_studies/cifar10")
    study = project / "conf/cifar10/studies/memorisation.yml"
    text = study.read_text()
    study.write_text(text.replace("title: ", "title: Also "))  # which changes no number
    assert run_claims(project).exit_code == 0
    assert "the study has changed" not in " ".join((project / "docs/claims.md").read_text().split())
    study.write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert run_claims(project).exit_code == 0
    page = " ".join((project / "docs/claims.md").read_text().split())
    again = "the study has changed, run it again: `kedro study memorisation --env cifar10`."
    assert page.count(f"- not measured on CIFAR-10, the paper's data set: {again}") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("claims: []", "data_sets"),
        ("claims: [{claim: c}]\ndata_sets: {}", "claims.0.source"),
    ],
)
def test_a_wrong_file_of_claims_is_one_message(project, text, message):
    (project / "conf/claims.yml").write_text(text)
    found = run_claims(project)
    assert found.exit_code == 1
    assert message in found.output
