"""What a data set's folder in conf/ may say: three files (and what the paper prints of it), nothing twice, and every size."""

import copy
import shutil
from functools import reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace

import pytest
from click import ClickException
from omegaconf import OmegaConf
from pydantic_core import PydanticUndefined
from test_environments import CONF, ENVIRONMENTS, leaves, loader

from spatial_functa_pipeline.config.presets import find_field
from spatial_functa_pipeline.hooks.parameters import ParameterHooks
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

TRAININGS = ("meta_learning.training", "classification.training", "diffusion.training")
SIZES = [
    *(
        f"{training}.{key}"
        for training in (*TRAININGS, "evaluation.frechet.feature_network")
        for key in ("steps", "batch_size", "learning_rate")
    ),
    *(f"meta_learning.{key}" for key in ("field.width", "field.depth", "validation_images")),
    *(f"functaset.{key}" for key in ("augmented_copies", "shard_rows", "chunk_rows", "encode_batch")),
    *(f"classification.transformer.{key}" for key in ("width", "ffw_width", "blocks", "heads")),
    *(f"classification.convnext.{key}" for key in ("width", "blocks")),
    *(f"{block}.mlp.{key}" for block in ("classification", "diffusion") for key in ("width", "blocks")),
    *(f"diffusion.unet.{key}" for key in ("channels", "multipliers", "residual_blocks")),
    *(f"evaluation.sampling.{key}" for key in ("samples", "batch_size")),
]
PRINTED = "parameters_printed.yml"
DATA = ("dataset", "latent_shape", "data_path", "resolution", "channels", "num_classes")  # said in globals.yml


def written(env, name):
    """A file of conf/, as it is written."""
    return OmegaConf.to_container(OmegaConf.load(CONF / env / name))


def default(key):
    value = find_field(key).get_default()
    return list(value) if isinstance(value, tuple) else value


def repeated(parameters, base):
    """Keys of a data set's parameters, and of the rows of its presets, that have the value that they would have anyway."""
    parameters = dict(parameters)
    presets = parameters.pop("presets", [])
    below, own = leaves(base), leaves(parameters)
    found = [key for key, value in own.items() if value == below.get(key, default(key))]
    changed = set()
    for number, preset in enumerate(presets):
        row = leaves(preset["set"])
        for key, value in row.items():
            if key not in changed and value == {**below, **own}.get(key, default(key)):
                found.append(f"presets.{number}.{key}")
        changed |= set(row)
    return found


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_data_set_is_three_files(env):
    files = {path.name for path in (CONF / env).iterdir() if path.is_file()}
    assert files - {PRINTED} == {"globals.yml", "catalog_01_raw.yml", "parameters.yml"}


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_what_the_paper_prints_has_a_file_of_its_own_where_there_is_a_row_that_leaves_out_what_is_ours(env):
    presets = written(env, "parameters.yml").get("presets", [])
    assert (CONF / env / PRINTED).exists() == ({"recipe": "as_printed"} in [row["when"] for row in presets])


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_data_set_repeats_neither_base_nor_a_default(env):
    assert repeated(written(env, "parameters.yml"), written("base", "parameters.yml")) == []
    shared = written("base", "globals.yml")
    assert [key for key, value in written(env, "globals.yml").items() if key in shared and value == shared[key]] == []


def test_base_repeats_no_default():
    assert repeated(written("base", "parameters.yml"), {}) == []


def test_repeats_are_found():
    base = {"meta_learning": {"training": {"schedule": "cosine", "clip_norm": 0.1}}}
    own = {
        "seed": 0,
        "meta_learning": {"training": {"schedule": "cosine", "clip_norm": 1.0}, "field": {"omega0": 10.0, "width": 64}},
        "presets": [
            {"when": {}, "set": {"meta_learning.field": {"width": 64, "kernel_size": 1}, "seed": 1}},
            {"when": {}, "set": {"meta_learning.training.schedule": "cosine", "seed": 0}},
        ],
    }
    assert repeated(own, base) == [
        "meta_learning.training.schedule",
        "meta_learning.field.omega0",
        "presets.0.meta_learning.field.width",
        "presets.0.meta_learning.field.kernel_size",
        "presets.1.meta_learning.training.schedule",
    ]


def lines(*paths):
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_what_all_data_sets_share_is_at_most_450_lines_long():
    shared = [path for path in CONF.glob("*.yml") if path.name != "claims.yml"]  # what the paper says, and no setting
    assert lines(*shared, *(CONF / "base").glob("*.yml")) <= 450


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_data_set_is_at_most_150_lines_long(env):
    assert lines(*(path for path in (CONF / env).glob("*.yml") if path.name != PRINTED)) <= 150


# Sizes


def first_check(config_loader):
    """What a user reads before anything runs."""
    with pytest.raises(ClickException) as error:
        ParameterHooks().after_context_created(SimpleNamespace(config_loader=config_loader))
    return str(error.value)


@pytest.mark.parametrize("key", SIZES)
def test_a_size_has_neither_a_default_nor_a_value_in_base(key):
    assert find_field(key).get_default() is PydanticUndefined
    assert key not in leaves(written("base", "parameters.yml"))
    parameters = copy.deepcopy(loader("sample")["parameters"])
    *blocks, name = key.split(".")
    del reduce(getitem, blocks, parameters)[name]
    assert f"\n  {key}: Field required" in first_check({"parameters": parameters})


def test_every_key_without_a_default_is_a_size_or_says_what_the_data_are():
    required = {
        key for key in leaves(loader("sample")["parameters"]) if find_field(key).get_default() is PydanticUndefined
    }
    elsewhere = {f"meta_learning.field.{key}" for key in ("latent_shape", "interpolation", "resolution", "channels")}
    data = {key if key in ("dataset", "latent_shape", "data_path") else f"data.{key}" for key in DATA}
    assert required == {*SIZES, *elsewhere, *data, "interpolation", "seed"}


@pytest.fixture
def own(tmp_path):
    """conf/ with a data set of one's own, a copy of Fashion-MNIST's; `own(old, new, name)` edits one of its files."""
    shutil.copytree(CONF, tmp_path / "conf")
    shutil.copytree(CONF / "fashion_mnist", tmp_path / "conf/own")

    def edit(old, new, name):
        path = Path(tmp_path / "conf/own" / name)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return CONFIG_LOADER_CLASS(str(tmp_path / "conf"), env="own", **CONFIG_LOADER_ARGS)

    return edit


def test_a_new_data_set_that_forgets_a_size_is_told_so(own):
    loaded = own("width: 64, depth: 6, ", "", "parameters.yml")
    message = first_check(loaded)
    assert "\n  meta_learning.field.width: Field required\n  meta_learning.field.depth: Field required" in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("key", DATA)
def test_a_new_data_set_that_forgets_what_its_images_are_is_told_so(own, key):
    assert f"Globals key '{key}' not found" in first_check(own(f"\n{key}: ", f"\n{key}_: ", "globals.yml"))


def test_the_parameters_may_say_what_the_data_are(own):
    loaded = own("meta_learning:", "data: {channels: 3}\nmeta_learning:", "parameters.yml")["parameters"]
    assert loaded["meta_learning"]["field"]["channels"] == loaded["data"]["channels"] == 3


# A name is part of paths


@pytest.mark.parametrize("name", ["cifar10", "my_data-2.1", "A"])
def test_a_data_sets_name_is_plain(name):
    assert loader("sample", {"dataset": name})["parameters"]["dataset"] == name


@pytest.mark.parametrize("name", ["a/b", "..", ".", "../x", "a..b", ".hidden", "a b", "", "ä", "a\\b", "a:b"])
def test_a_data_sets_name_that_is_none_is_refused(name):
    message = first_check(loader("sample", {"dataset": name}))
    assert "\n  dataset: a data set's name is made of letters, digits, _, - and single dots" in message
    assert repr(name) in message


# Where the images are


@pytest.mark.parametrize(
    ("given", "path"), [({}, "/from/parameters"), ({"data_path": "/from/command/line"}, "/from/command/line")]
)
def test_the_images_are_where_the_parameters_say(tmp_path, given, path):
    """Written in parameters.yml, `data_path` moves the images as it does in globals.yml or on the command line."""
    shutil.copytree(CONF, tmp_path / "conf")
    with (tmp_path / "conf/sample/parameters.yml").open("a") as file:
        file.write("\ndata_path: /from/parameters\n")
    loaded = CONFIG_LOADER_CLASS(str(tmp_path / "conf"), env="sample", runtime_params=given, **CONFIG_LOADER_ARGS)
    assert loaded["parameters"]["data_path"] == path
    assert {loaded["catalog"][f"{split}_images"]["filepath"] for split in ("train", "validation", "test")} == {path}
