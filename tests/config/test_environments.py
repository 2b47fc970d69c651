"""Every environment, with every variant of the paper that belongs to it: it validates, and its models build and run."""

from functools import reduce
from pathlib import Path

import pytest
import torch
from kedro.io import DataCatalog
from torch import nn

from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.datasets.images import ImagesDataset
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"
ENVIRONMENTS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "base")

# Tab. 3 (1-NN); Tab. 5 and 6 (both interpolations); App. B.1
IMAGENET_SHAPES = (
    *("8x8x256", "8x8x512", "8x8x1024", "16x16x64", "16x16x128", "16x16x256"),
    *("32x32x16", "32x32x32", "32x32x64"),
)
CIFAR10_VARIANTS = [(shape, kind) for shape in ("8x8x16", "4x4x64") for kind in ("nearest", "linear")]
VECTOR_SHAPES = ("1x1x256", "1x1x512", "1x1x1024")


def variant(shape, interpolation="nearest", conditional=None):
    choice = {"latent_shape": shape, "interpolation": interpolation}
    return choice if conditional is None else {**choice, "diffusion": {"conditional": conditional}}


VARIANTS = [
    *((env, {}) for env in ENVIRONMENTS),
    *((env, variant("4x4x32")) for env in ENVIRONMENTS),  # a shape for which no environment has a row
    *(("cifar10", variant(*choice, conditional)) for choice in CIFAR10_VARIANTS for conditional in (True, False)),
    *(("cifar10", variant(shape)) for shape in VECTOR_SHAPES),
    ("cifar10", variant("1x1x256", "nearest", False)),
    *(("imagenet256", variant(shape)) for shape in IMAGENET_SHAPES),
    *((env, variant("1x1x512")) for env in ("cluttered_fashion_mnist", "noto_emoji")),
]


def name_of(env, choice):
    return "-".join(map(str, (env, *leaves(choice).values())))


def leaves(tree, prefix=""):
    """`{"a": {"b": 1}}` → `{"a.b": 1}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: leaf
        for name, sub in tree.items()
        for key, leaf in leaves(sub, f"{prefix}.{name}" if prefix else name).items()
    }


def loader(env, runtime_params=None):
    """The configuration as the project reads it. To be used before the next one is made: resolvers are global."""
    return CONFIG_LOADER_CLASS(str(CONF), env=env, runtime_params=runtime_params, **CONFIG_LOADER_ARGS)


_LOADED: dict[str, PipelineParameters] = {}


def load(env, runtime_params=None):
    """An environment's parameters. They cannot be changed, so that the same are read once for all tests."""
    key = f"{env} {runtime_params}"
    if key not in _LOADED:
        _LOADED[key] = PipelineParameters.model_validate(loader(env, runtime_params)["parameters"])
    return _LOADED[key]


def classes_of(parameters):
    """As many as the images have, where nothing is said: a few."""
    return parameters.data.num_classes or 3


def get(parameters, key):
    return reduce(getattr, key.split("."), parameters)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def build(env, make):
    """`make()` and the device it is on: the CPU if it is small, else the one that has shapes but no numbers."""
    device = torch.device("cpu" if env in ("sample", "test") else "meta")
    with device:
        return make(), device


def check(model, output, shape):
    """Output of the shape `shape`, finite where there are numbers; gradients of it for every parameter."""
    assert output.shape == shape
    assert output.is_meta or output.isfinite().all()
    output.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda case: name_of(*case))
def case(request):
    """An environment's name, and its parameters for one variant."""
    env, choice = request.param
    return env, load(env, choice)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_environment_names_its_own_folder(env):
    assert load(env).dataset == {"sample": "fashion_mnist_sample", "test": "test_run"}.get(env, env)


def test_field_builds_and_runs(case):
    env, parameters = case
    config = parameters.meta_learning.field
    field, device = build(env, lambda: SpatialField(config.spec))
    images = torch.rand(2, *config.resolution, config.channels, device=device)
    reconstructions, latents = field(images)
    assert latents.shape == (2, *config.latent_shape.shape)
    check(field, reconstructions, images.shape)


def test_classifier_builds_and_runs(case):
    env, parameters = case
    classes = classes_of(parameters)
    model, device = build(env, lambda: build_classifier(parameters.classification, parameters.latent_shape, classes))
    latents = torch.randn(2, *parameters.latent_shape.shape, device=device)
    check(model, model(latents), (2, classes))


def test_denoiser_builds_and_runs(case):
    env, parameters = case
    config, classes = parameters.diffusion, classes_of(parameters)
    model, device = build(env, lambda: build_denoiser(config, parameters.latent_shape, classes))
    noisy = torch.randn(2, *parameters.latent_shape.shape, device=device)
    timesteps = torch.tensor([0, config.timesteps - 1], device=device)
    labels = torch.tensor([0, classes], device=device) if config.conditional else None  # the last: the dummy label
    check(model, model(noisy, timesteps, labels), noisy.shape)


def test_vector_functa_takes_the_mlps_and_spatial_functa_does_not():
    for shape, expected in (*((shape, True) for shape in VECTOR_SHAPES), ("8x8x16", False)):
        parameters = load("cifar10", variant(shape))
        for block in (parameters.classification, parameters.diffusion):
            assert (block.architecture_on(parameters.latent_shape) == "mlp") is expected


def meta_size(make) -> float:
    """Millions of parameters."""
    with torch.device("meta"):
        model: nn.Module = make()
    return size(model) / 1e6


def test_imagenet_denoiser_has_the_papers_277_million_parameters():
    parameters = load("imagenet256", variant("32x32x64"))
    millions = meta_size(lambda: build_denoiser(parameters.diffusion, parameters.latent_shape, 1000))
    assert millions == pytest.approx(277.4, abs=0.05)


def test_imagenet_classifier_has_the_papers_64_million_parameters():
    parameters = load("imagenet256", variant("16x16x128"))
    millions = meta_size(lambda: build_classifier(parameters.classification, parameters.latent_shape, 1000))
    assert 64 <= millions <= 65


# What the paper prints, typed from it.

FIELD = ("omega0", "width", "depth", "kernel_size")
FIELDS = {  # ω0, width, depth, side of λ's kernel; learning rate, batch size, steps (None: not printed)
    ("cifar10", "8x8x16"): ((10, None, None, 1), (None, 128, 200_000)),
    ("cifar10", "4x4x64"): ((10, None, None, 1), (None, 128, 500_000)),
    ("cifar10", "1x1x256"): ((30, 512, 15, 1), (3e-6, 128, None)),
    ("cifar10", "1x1x512"): ((30, 512, 15, 1), (3e-6, 128, None)),
    ("cifar10", "1x1x1024"): ((30, 512, 15, 1), (3e-6, 128, None)),
    ("imagenet256", "16x16x128"): ((20, 256, 12, 1), (1e-5, 16, 500_000)),
    ("imagenet256", "32x32x64"): ((10, 256, 8, 3), (3e-5, 16, 500_000)),
}

CLASSIFIERS = {  # scale, width, ffw, blocks, learning rate, dropout, batch size
    ("8x8x16", "nearest"): (0.08, 128, 256, 12, 1e-2, 0.1, 256),
    ("8x8x16", "linear"): (0.1, 128, 256, 12, 1e-2, 0.2, 256),
    ("4x4x64", "nearest"): (0.01, 384, 768, 12, 2e-3, 0.1, 512),
    ("4x4x64", "linear"): (0.01, 384, 768, 16, 2e-3, 0.2, 512),
}

UNETS = {  # conditional, shape, interpolation: schedule, residual blocks, multipliers, attention, dropout
    (False, "8x8x16", "nearest"): ("linear", 1, (1, 1), (4,), 0.4),
    (False, "8x8x16", "linear"): ("cosine", 2, (2, 2), (4,), 0.4),
    (False, "4x4x64", "nearest"): ("cosine", 2, (2, 2), (4,), 0.4),
    (False, "4x4x64", "linear"): ("cosine", 2, (2, 2), (4,), 0.4),
    (True, "8x8x16", "nearest"): ("cosine", 3, (2, 2, 2), (8, 4), 0.1),
    (True, "8x8x16", "linear"): ("cosine", 3, (2, 2, 2), (8, 4), 0.0),
    (True, "4x4x64", "nearest"): ("cosine", 3, (2, 2), (4,), 0.0),
    (True, "4x4x64", "linear"): ("cosine", 3, (2, 2, 2), (4, 2), 0.0),
}

PRINTED = [
    (
        "cifar10",
        {},
        {
            "classification.transformer.heads": 16,
            "classification.label_smoothing": 0.1,
            "classification.training.weight_decay": 0.1,
            "classification.training.ema_decay": 0.9999,
            "classification.training.steps": 100_000,
            "functaset.augmented_copies": 50,
            "functaset.augmentation.crop_padding": 4,
            "functaset.augmentation.flip": True,
            "diffusion.normalisation.kind": "vector",
            "diffusion.normalisation.gamma": 2.0,
            "diffusion.unet.channels": 320,
            "diffusion.timesteps": 1000,
            "diffusion.objective": "epsilon",
            "diffusion.dummy_label_share": 0.2,
            "diffusion.training.learning_rate": 1e-4,
            "diffusion.training.batch_size": 256,
            "diffusion.training.steps": 500_000,
            "evaluation.sampling.guidance_scale": 5.0,
        },
    ),
    (
        "cifar10",
        variant("1x1x512"),
        {
            "classification.normalisation_scale": 0.01,
            "classification.dropout": 0.2,
            "classification.mlp.width": 1024,
            "classification.mlp.blocks": 3,
            "classification.training.learning_rate": 1e-3,
            "classification.training.batch_size": 256,
            "classification.training.steps": 300_000,
        },
    ),
    (
        "cifar10",
        variant("1x1x256", "nearest", False),
        {
            "diffusion.mlp.width": 4096,
            "diffusion.mlp.blocks": 2,
            "diffusion.normalisation.kind": "array",
            "diffusion.normalisation.gamma": 1.0,
            "diffusion.training.learning_rate": 3e-4,
            "diffusion.training.schedule": "inverse_sqrt",
            "diffusion.training.warmup_steps": 4000,
            "diffusion.training.batch_size": 128,
            "diffusion.training.steps": 1_000_000,
            "evaluation.sampling.guidance_scale": None,
        },
    ),
    (
        "imagenet256",
        variant("16x16x128"),
        {
            "classification.normalisation_scale": 0.005,
            "classification.transformer.width": 768,
            "classification.transformer.ffw_width": 1536,
            "classification.transformer.blocks": 18,
            "classification.transformer.heads": 16,
            "classification.dropout": 0.2,
            "classification.label_smoothing": 0.1,
            "classification.training.weight_decay": 0.2,
            "classification.training.learning_rate": 1e-3,
            "classification.training.batch_size": 1024,
            "functaset.augmentation.flip": True,
            "functaset.augmentation.resized_crop": True,
            "functaset.augmentation.randaugment_operations": 2,
            "functaset.augmentation.randaugment_magnitude": 5,
        },
    ),
    (
        "imagenet256",
        variant("32x32x64"),
        {
            "diffusion.unet.channels": 320,
            "diffusion.unet.multipliers": (1, 2, 2, 2),
            "diffusion.unet.residual_blocks": 2,
            "diffusion.unet.attention_resolutions": (8, 16),
            "diffusion.unet.dropout": 0.0,
            "diffusion.normalisation.kind": "vector",
            "diffusion.normalisation.gamma": 2.5,
            "diffusion.noise_schedule": "cosine",
            "diffusion.timesteps": 1000,
            "diffusion.dummy_label_share": 0.2,
            "diffusion.training.learning_rate": 1e-4,
            "diffusion.training.batch_size": 256,
            "diffusion.training.steps": 1_500_000,
            "evaluation.sampling.sampler": "ddpm",
            "evaluation.sampling.steps": 1000,
            "evaluation.sampling.samples": 50_000,
            "evaluation.sampling.guidance_scale": 5.0,
        },
    ),
]


@pytest.mark.parametrize(("env", "shape"), FIELDS)
def test_fields_are_the_papers(env, shape):
    config = load(env, variant(shape)).meta_learning
    values, training = FIELDS[env, shape]
    actual = tuple(getattr(config.field, name) for name in FIELD)
    assert [a for a, printed in zip(actual, values, strict=True) if printed not in (None, a)] == []
    actual = (config.training.learning_rate, config.training.batch_size, config.training.steps)
    assert [a for a, printed in zip(actual, training, strict=True) if printed not in (None, a)] == []
    assert config.field.inner_steps == 3


@pytest.mark.parametrize(("shape", "interpolation"), CLASSIFIERS)
def test_cifar10_classifiers_are_those_of_table_5(shape, interpolation):
    config = load("cifar10", variant(shape, interpolation)).classification
    transformer, training = config.transformer, config.training
    assert (
        config.normalisation_scale,
        transformer.width,
        transformer.ffw_width,
        transformer.blocks,
        training.learning_rate,
        config.dropout,
        training.batch_size,
    ) == CLASSIFIERS[shape, interpolation]


@pytest.mark.parametrize(("conditional", "shape", "interpolation"), UNETS)
def test_cifar10_unets_are_those_of_table_6(conditional, shape, interpolation):
    config = load("cifar10", variant(shape, interpolation, conditional)).diffusion
    unet = config.unet
    assert config.conditional is conditional
    assert (
        config.noise_schedule,
        unet.residual_blocks,
        unet.multipliers,
        unet.attention_resolutions,
        unet.dropout,
    ) == UNETS[conditional, shape, interpolation]
    assert (unet.channels, config.normalisation.gamma) == (320, 2.0)


@pytest.mark.parametrize(("env", "choice", "printed"), PRINTED, ids=[name_of(*row[:2]) for row in PRINTED])
def test_other_values_are_the_papers(env, choice, printed):
    parameters = load(env, choice)
    assert {key: get(parameters, key) for key in printed} == printed


@pytest.mark.parametrize("env", ["cifar10", "imagenet256", "celebahq64", "image_folder", "fashion_mnist", "sample"])
def test_denoisers_train_on_mirrored_images_where_others_flip(env):
    parameters = load(env)
    expected = env in ("cifar10", "imagenet256", "celebahq64")
    assert (parameters.functaset.mirror_images, parameters.diffusion.mirror_images) == (expected, expected)


@pytest.mark.parametrize("env", ["fashion_mnist", "image_folder", "sample", "cluttered_fashion_mnist", "noto_emoji"])
def test_data_sets_that_sample_in_few_steps_do_not_predict_epsilon(env):
    parameters = load(env)
    assert parameters.evaluation.sampling.preset == "fast"
    assert parameters.diffusion.objective in ("v_prediction", "flow_matching")


def test_imagenet_classifier_trains_for_200_epochs():
    training = load("imagenet256").classification.training
    assert training.steps * 1024 / (1_281_167 - 10_000) == pytest.approx(200, abs=1e-3)


# Overriding single values from the command line


def test_a_single_value_overrides_the_row_of_the_chosen_variant():
    choice = {**variant("4x4x64", "linear"), "classification": {"transformer": {"width": 64}}}
    transformer = load("cifar10", choice).classification.transformer
    assert (transformer.width, transformer.ffw_width, transformer.blocks) == (64, 768, 16)


@pytest.mark.parametrize("keys", [("unet", "conditional"), ("conditional", "unet")])
def test_a_value_of_the_unet_and_its_table_are_chosen_in_any_order(keys):
    diffusion = {"unet": {"dropout": 0.7}, "conditional": False}
    unet = load("cifar10", {"diffusion": {key: diffusion[key] for key in keys}}).diffusion.unet
    assert (unet.dropout, unet.multipliers, unet.residual_blocks) == (0.7, (1, 1), 1)


def test_imagenets_32x32x64_can_have_the_1x1_map_of_table_3():
    choice = {**variant("32x32x64"), "meta_learning": {"field": {"kernel_size": 1}}}
    field = load("imagenet256", choice).meta_learning.field
    assert (field.kernel_size, field.depth, field.omega0) == (1, 8, 10)


# The catalog

IMAGES = ("train_images", "validation_images", "test_images")
SPLITS = {  # images of the parts that are cut, and the sizes of the splits
    "sample": ({"test": 10_000}, (8000, 1000, 1000)),
    "test": ({"test": 10_000}, (300, 60, 100)),
    "fashion_mnist": ({"train": 60_000, "test": 10_000}, (55_000, 5000, 10_000)),
    "cluttered_fashion_mnist": ({"test": 10_000}, (8000, 1000, 1000)),
    "cluttered_fashion_mnist_whole": ({"train": 60_000, "test": 10_000}, (55_000, 5000, 10_000)),
    "noto_emoji": ({"share": 1659}, (1161, 166, 332)),  # families
    "cifar10": ({"train": 50_000, "test": 10_000}, (45_000, 5000, 10_000)),
    "celebahq64": ({"celebahq": 30_000}, (26_000, 1000, 3000)),
    "imagenet256": ({"train": 1_281_167, "val": 50_000}, (1_271_167, 10_000, 50_000)),
    "image_folder": ({"image_folder": 7003}, (5602, 701, 700)),
}


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_dataset_of_the_catalog_is_made(env):
    config = loader(env, variant("4x4x32", "linear"))
    parameters, entries = config["parameters"], config["catalog"]
    catalog = DataCatalog.from_config(entries)
    assert set(IMAGES) < set(entries)
    for name in entries:
        assert isinstance(catalog.get(name), ImagesDataset) == (name in IMAGES)
    folder = "{dataset}/{latent_shape}-{interpolation}/".format(**parameters)
    assert folder in entries["field"]["filepath"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_splits_have_the_documented_sizes_and_share_no_image(env):
    config = loader(env)["catalog"]
    catalog = DataCatalog.from_config(config)
    parts, sizes = SPLITS[env]
    seen = set()
    for name, expected in zip(IMAGES, sizes, strict=True):
        entry = config[name]
        part = entry.get("part", Path(entry["filepath"]).name)
        rows = range(parts[part])[catalog.get(name)._row_slice(parts[part])]
        images = {(part, row) for row in rows}
        assert len(images) == expected
        assert not seen & images
        seen |= images
    assert len({config[name].get("shuffle_seed") for name in IMAGES}) == 1


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_data_path_is_where_the_images_are_read(env):
    choice = {"data_path": "/data/elsewhere"}
    config = loader(env, choice)["catalog"]
    assert all(config[name]["filepath"].startswith("/data/elsewhere") for name in IMAGES)
    assert load(env, choice).data_path == "/data/elsewhere"
    assert config["field"] == loader(env)["catalog"]["field"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_images_have_the_resolution_that_the_parameters_say(env):
    config, resolution = loader(env)["catalog"], load(env).data.resolution
    assert {tuple(config[name].get("resolution", (32, 32))) for name in IMAGES} == {resolution}


@pytest.mark.parametrize("env", ["celebahq64", "imagenet256", "image_folder"])
def test_folders_are_read_with_the_channels_that_the_parameters_say(env):
    assert {loader(env)["catalog"][name]["channels"] for name in IMAGES} == {3}
    grey = {"data": {"channels": 1}}
    assert {loader(env, grey)["catalog"][name]["channels"] for name in IMAGES} == {1}
    assert load(env, grey).meta_learning.field.channels == 1


def test_nothing_is_made_for_the_classifier_of_faces_alone():
    parameters = load("celebahq64")
    assert (parameters.data.num_classes, parameters.functaset.augmented_copies) == (1, 0)
