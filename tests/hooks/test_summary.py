"""What a run says at its end."""

import shlex

from kedro.framework.cli.utils import _split_params

from spatial_functa_pipeline.hooks.summary import options_of

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
