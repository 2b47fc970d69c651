"""What a run says at its end."""

import shlex
from pathlib import Path

from kedro.framework.cli.utils import _split_params
from kedro.io import DataCatalog

from spatial_functa_pipeline.hooks.summary import options_of, report_folders
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"


def folders(project, params):
    loader = CONFIG_LOADER_CLASS(str(CONF), env="test", runtime_params=params, **CONFIG_LOADER_ARGS)
    entries = {
        name: {**entry, "filepath": str(project / entry["filepath"])} for name, entry in loader["catalog"].items()
    }
    return report_folders(register_pipelines()["__default__"], DataCatalog.from_config(entries), project)


def test_all_reports_lie_in_the_folder_of_the_variant(tmp_path):
    ((folder, files),) = folders(tmp_path, {}).items()
    assert folder == Path("data/08_reporting/test_run/4x4x8-nearest")
    assert {"metrics.json", "samples_by_class.png", "generation_scores.csv", "training_curves.png"} <= set(files)


def test_what_a_changed_parameter_does_not_touch_is_named_where_it_lies(tmp_path):
    found = folders(tmp_path, {"diffusion": {"normalisation": {"gamma": 2.5}}})
    first, second = found
    assert first == Path("data/08_reporting/test_run/4x4x8-nearest/diffusion.normalisation.gamma=2.5")
    assert found[first][0] == "metrics.json"
    assert "samples_by_class.png" in found[first]
    assert second == Path("data/08_reporting/test_run/4x4x8-nearest")
    assert "reconstructions.png" in found[second]


RUN = {
    "env": "image_folder",
    "runtime_params": {"data_path": "/data/my images", "latent_shape": "8x8x16", "runtime": {"progress": False}},
}


def test_the_next_commands_are_of_the_same_environment_and_parameters():
    assert shlex.split(options_of(RUN)) == [
        *("--env", "image_folder"),
        *("--params", "data_path=/data/my images,latent_shape=8x8x16,runtime.progress=false"),
    ]
    assert options_of({"env": None, "runtime_params": {}}) == ""
    assert options_of({"env": None}, latent_shape="4x4x32") == " --params latent_shape=4x4x32"


def test_kedro_reads_them_as_they_were_but_for_the_latent_shape():
    params = shlex.split(options_of(RUN, latent_shape="4x4x32"))[-1]
    assert _split_params(None, None, params) == RUN["runtime_params"] | {"latent_shape": "4x4x32"}
