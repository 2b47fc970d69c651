"""When the page of a run is written, and what is on it: outputs are saved as nodes would save them, by the catalog."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from html_pages import check_page
from kedro.io import DataCatalog
from pictures import png

from spatial_functa_pipeline.datasets.fingerprint import Fingerprint
from spatial_functa_pipeline.datasets.reporting import FigureDataset
from spatial_functa_pipeline.hooks import report as module
from spatial_functa_pipeline.hooks.report import REPORT, ReportHooks
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"
PIPELINES = register_pipelines()
CONTENT = {
    "reconstruction_metrics": {"psnr": 17.8, "psnr_pca": 19.2, "details": {"psnr": "100 test images"}},
    "classification_metrics": {"details": {}},
    "class_accuracies": pd.DataFrame({"class": [], "accuracy": []}),
}


def loader(**params):
    return CONFIG_LOADER_CLASS(str(CONF), env="test", runtime_params=params, **CONFIG_LOADER_ARGS)


class Run:
    """What the hooks see of one, in the folder of a project; each has a catalog of its own."""

    def __init__(self, project, params=None, value=1):
        self.project, self.params, config = project, params or {}, loader(**(params or {}))
        entries = {
            name: {**entry, "filepath": str(project / entry["filepath"])}
            for name, entry in config["catalog"].items()
            if "08_reporting" in entry.get("filepath", "")
        }
        self.catalog = DataCatalog.from_config(entries)
        for name in entries:
            self.catalog.get(name).expected = Fingerprint(name, {"value": value})
        self.hooks = ReportHooks()
        self.hooks.after_context_created(SimpleNamespace(config_loader=config))

    def save(self, *names):
        """As the runner saves what nodes have made."""
        for name in names:
            entry = self.catalog.get(name)
            if isinstance(entry, FigureDataset):
                entry.save(SimpleNamespace(savefig=lambda buffer, **_: buffer.write(png(60, 50))))
            else:
                entry.save(CONTENT[name])
            self.hooks.after_dataset_saved(name)
        return self

    def end(self, pipeline="__default__"):
        run_params = {"project_path": str(self.project), "env": "test", "runtime_params": self.params}
        self.hooks.after_pipeline_run(run_params, PIPELINES[pipeline], self.catalog)
        return self.page.read_text() if self.page.exists() else None

    @property
    def page(self):
        return Path(self.catalog.get(REPORT)._filepath)


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """The files that went to MLflow."""
    found = []
    monkeypatch.setattr(module, "log_report", found.append)
    return found


def test_what_is_there_is_shown_in_the_order_of_the_catalog(tmp_path, logged):
    run = Run(tmp_path).save("latent_channels", "reconstructions", "reconstruction_metrics")
    text = check_page(run.end())
    assert run.page == tmp_path / "data/08_reporting/test_run/4x4x8-nearest/report.html"
    assert "test_run · 4x4x8-nearest With the data set's own parameters." in text
    assert "Results Reconstructions Latents Parameters To make it again" in text
    assert "17.8 dB to compare with" not in text
    assert "17.8 dB 19.2 dB PCA codes of as many numbers 100 test images" in text
    assert "kedro run --env test" in text
    assert "made by earlier runs nothing" in text
    assert logged == [run.page]


def test_a_run_that_has_reported_nothing_writes_no_page(tmp_path, logged):
    assert Run(tmp_path).end() is None
    run = Run(tmp_path).save("reconstructions")
    assert run.end("meta_learning") is None
    assert logged == []


def test_a_changed_parameter_names_the_folder_the_page_and_the_command(tmp_path):
    run = Run(tmp_path, {"diffusion": {"normalisation": {"gamma": 2.5}}}).save("reconstructions", "samples_by_class")
    text = check_page(run.end())
    assert run.page.parent.name == "diffusion.normalisation.gamma=2.5"
    assert "kedro run --env test --params diffusion.normalisation.gamma=2.5" in text
    folder = "data/08_reporting/test_run/4x4x8-nearest"
    assert f"{folder} : reconstructions.png" in text
    assert f"{folder}/diffusion.normalisation.gamma=2.5 : samples_by_class.png" in text


def test_a_value_that_no_option_can_say_is_written_into_a_file(tmp_path):
    run = Run(tmp_path, {"diffusion": {"training": {"betas": [0.9, 0.95]}}}).save("reconstructions")
    text = check_page(run.end())
    assert "cat > run.yml << END run: env: test params: diffusion: training: betas: - 0.9 - 0.95 END" in text
    assert "kedro run --config run.yml" in text


def test_the_page_is_written_again_only_if_it_would_be_another(tmp_path, logged):
    Run(tmp_path).save("reconstructions").end()
    page = Run(tmp_path).page
    page_before = page.stat().st_mtime_ns
    Run(tmp_path).end()  # everything is up to date
    assert page.stat().st_mtime_ns == page_before
    assert len(logged) == 2
    text = check_page(Run(tmp_path).save("latent_channels").end())
    assert "Reconstructions Latents" in text
    assert "made by earlier runs reconstructions" in text
    page.unlink()
    assert Run(tmp_path).end() is not None


def test_what_is_stale_is_left_out_by_name(tmp_path):
    Run(tmp_path).save("reconstructions")
    text = check_page(Run(tmp_path, value=2).save("latent_channels").end())
    assert "reconstructions : value was 1, is 2" in text
    assert "Test images, what the field" not in text


def test_a_single_class_has_no_section_of_its_accuracy(tmp_path):
    run = Run(tmp_path).save("reconstructions", "confusion_figure", "class_accuracies", "classification_metrics")
    text = check_page(run.end())
    assert "Reconstructions" in text
    assert "Confusion matrix" not in text


def test_every_figure_has_a_place_on_the_page():
    entries = loader()["catalog"]
    figures = {name: entry for name, entry in entries.items() if entry["type"].endswith("FigureDataset")}
    assert figures
    for name, entry in figures.items():
        about = entry["metadata"].get(REPORT, {})
        assert {"section", "caption"} <= set(about), f"{name}: what the page of a run says of it"
