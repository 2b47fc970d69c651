"""Every study and search of `conf/`: all parameters validate, models build, and what is measured can be measured."""

from functools import cache

import pytest
import torch
from metric_names import metric_names
from omegaconf import OmegaConf
from pydantic import ValidationError
from test_environments import CONF, classes_of, load, loader

from spatial_functa_pipeline.config.places import flatten, nest
from spatial_functa_pipeline.config.search import SearchConfig
from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import build_denoiser

STUDIES = {
    f"{path.parts[-3]}/{path.stem}": StudyConfig.model_validate(OmegaConf.to_container(OmegaConf.load(path)))
    for path in sorted(CONF.glob("*/studies/*.yml"))
}
VARIANTS = [(name, variant) for name, study in STUDIES.items() for variant in study.all_variants]
each_study = pytest.mark.parametrize("name", STUDIES)
each_variant = pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=[f"{n}-{v.label}" for n, v in VARIANTS])

TABLE_3 = {  # latent shape, λ's side: PSNR, top-1, FID (None: a blank in the paper)
    ("8x8x256", 1): (28.3, 76.6, 17.9),
    ("8x8x512", 1): (30.6, 76.5, 23.5),
    ("8x8x1024", 1): (25.7, 76.5, None),
    ("16x16x64", 1): (28.9, 80.4, 12.5),
    ("16x16x128", 1): (37.8, 80.7, 10.5),
    ("16x16x256", 1): (37.2, 80.6, 11.7),
    ("32x32x16", 1): (28.6, None, 12.4),
    ("32x32x32", 1): (31.7, None, 10.5),
    ("32x32x64", 1): (37.7, None, 8.8),
    ("32x32x64", 3): (38.4, None, 8.5),
}
MEASURED_IN = ("reconstruction_metrics", "classification_metrics", "generation_metrics")
SEARCHES = {
    f"{path.parts[-3]}/{path.stem}": SearchConfig.model_validate(OmegaConf.to_container(OmegaConf.load(path)))
    for path in sorted(CONF.glob("*/searches/*.yml"))
}
HISTORIES = {
    "validation_psnr": "field_history",
    "validation_accuracy": "classifier_history",
    "validation_loss": "denoiser_history",
}


def parameters_of(name, variant):
    return load(name.split("/")[0], nest(dict(flatten(variant.parameters))))


@cache
def sizes_of(make, *arguments):
    """Whether a model builds, without numbers; once for all variants that have the same."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(*arguments).parameters())


def require_models(parameters):
    shape, classes = parameters.latent_shape, classes_of(parameters)
    if parameters.encoder == "field":
        assert sizes_of(SpatialField, parameters.meta_learning.field.spec)
    elif parameters.encoder == "autoencoder":
        spec = CodeSpec(shape, parameters.data.resolution, parameters.data.channels)
        config = parameters.autoencoder.model_copy(update={"training": None})
        assert sizes_of(Autoencoder, spec, config)
    for make, block in ((build_classifier, "classification"), (build_denoiser, "diffusion")):
        config = getattr(parameters, block).model_copy(update={"training": None})  # which is no part of the model
        assert sizes_of(make, config, shape, classes)


@each_variant
def test_a_variants_parameters_validate_and_its_models_build(name, variant):
    require_models(parameters_of(name, variant))


@pytest.mark.parametrize("name", [name for name in STUDIES if name.endswith("/baselines")])
def test_grids_are_compared_with_the_same_denoiser(name):
    denoisers = {}
    for variant in STUDIES[name].all_variants:
        tree = parameters_of(name, variant)
        if tree.latent_shape.cells > 1 and "generation_metrics" in variant.outputs:
            key = tree.latent_shape.grid if name.startswith("imagenet256/") else "any grid"
            denoisers.setdefault(key, set()).add(str(tree.diffusion.unet))
    assert all(len(same) == 1 for same in denoisers.values())


@pytest.mark.parametrize("name", SEARCHES)
def test_every_value_of_a_search_validates_and_its_models_build(name):
    search = SEARCHES[name]
    ends = {
        key: values if isinstance(values, list) else [values.low, values.high] for key, values in search.space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():
        for value in values:
            given = dict(flatten({**search.set, **first, key: value}))
            require_models(load(name.split("/")[0], nest(given)))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_its_metric_where_it_is(name):
    search = SEARCHES[name]
    env = name.split("/")[0]
    names = metric_names(load(env).evaluation.frechet.features)
    assert search.output in entries(env)
    assert HISTORIES.get(search.metric) == search.output or search.metric in names[search.output]


def test_searches_have_the_sizes_of_the_papers_grids():
    sizes = {name.removeprefix("cifar10/"): search.size for name, search in SEARCHES.items() if name[:7] == "cifar10"}
    assert sizes == {
        "vector_mlp": 3 * 3 * 2 * 2 * 3 * 4 * 4,
        "vector_transformer": 3 * 3 * 2 * 2 * 3 * 3 * 3,
        "vector_denoiser": 4 * 2,
        "field": 27,
        "classifier": 96,
        "unet": 108,
    }


@cache
def entries(env):
    return {name for name in loader(env)["catalog"] if not name.startswith("_")}


@each_variant
def test_a_variants_outputs_are_entries_of_the_catalog(name, variant):
    assert set(variant.outputs) <= entries(name.split("/")[0])
    assert len(set(variant.outputs)) == len(variant.outputs)


@each_study
def test_what_is_measured_is_in_the_outputs(name):
    study = STUDIES[name]
    names = metric_names(load(name.split("/")[0]).evaluation.frechet.features)
    possible = set().union(*(names.get(output, set()) for output in study.outputs))
    assert [metric for metric in study.measure if metric not in possible] == []
    assert len(set(study.measure)) == len(study.measure)


@each_study
def test_a_figure_draws_what_is_varied_and_measured(name):
    study = STUDIES[name]
    figure = study.figure
    assert [metric for metric in figure.metrics if metric not in study.measure] == []
    keys = {"name"} | set().union(*(variant.point for variant in study.all_variants))
    assert {figure.x, figure.by} - {None} <= keys
    if figure.kind == "lines":
        assert figure.x


ON_THE_DEFAULT_RUN = {"sample/objectives", "sample/evaluations"}


@pytest.mark.parametrize("name", sorted(ON_THE_DEFAULT_RUN))
def test_some_embedded_studies_are_of_the_default_runs_latents(name):
    for variant in STUDIES[name].all_variants:
        assert {key.split(".")[0] for key in variant.parameters} <= {"diffusion", "evaluation", "seed"}


@pytest.mark.parametrize(
    "name", [name for name in STUDIES if name.startswith("sample/") and name not in ON_THE_DEFAULT_RUN]
)
def test_the_other_embedded_studies_share_one_base_run(name):
    base = {
        "meta_learning.training.steps": 1500,
        "classification.training.steps": 600,
        "diffusion.training.steps": 700,
    }
    for variant in STUDIES[name].all_variants:
        vector = LatentShape.parse(variant.parameters.get("latent_shape", "8x8x8")).cells == 1
        wanted = base | ({"meta_learning.training.steps": 500} if vector else {})
        assert {key: variant.parameters[key] for key in base} == wanted


def test_imagenets_shapes_are_the_rows_of_table_3_with_its_blanks():
    rows = {}
    for variant in STUDIES["imagenet256/latent_shapes"].all_variants:
        parameters = parameters_of("imagenet256/latent_shapes", variant)
        if parameters.interpolation == "nearest":
            field = parameters.meta_learning.field
            rows[str(field.latent_shape), field.kernel_size] = tuple(name in variant.outputs for name in MEASURED_IN)
    assert rows == {row: tuple(value is not None for value in values) for row, values in TABLE_3.items()}


def test_outputs_of_a_variant_are_the_studys_where_it_has_none():
    study = StudyConfig.model_validate(
        {
            "title": "t",
            "outputs": ["a", "b"],
            "measure": ["m"],
            "variants": [{"name": "all"}, {"name": "one", "outputs": ["b"]}],
        }
    )
    assert [variant.outputs for variant in study.all_variants] == [("a", "b"), ("b",)]
    with pytest.raises(ValidationError, match="outputs"):
        StudyConfig.model_validate({"title": "t", "outputs": ["a"], "measure": ["m"], "variants": [{"outputs": []}]})
