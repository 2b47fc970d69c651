"""Which products trainings, encoding, decoding, sampling and features are computed with: exactly those asked for.

There is no CUDA where these tests run, but its switches are there, and can be read from inside.
"""

import numpy as np
import pytest
import tiny_trainings as tiny
import torch
from torch.nn.modules import module as modules

from spatial_functa_pipeline import compute
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.evaluation import decoding
from spatial_functa_pipeline.evaluation.samples import plan_samples
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets import encoding
from spatial_functa_pipeline.functasets.format import FunctasetHeader
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.metrics.comparison import FeatureSet
from spatial_functa_pipeline.metrics.features import ConvNetFeatures, FeatureNetwork
from spatial_functa_pipeline.metrics.neighbours import nearest_images
from spatial_functa_pipeline.models import sampling as sampling_module
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.training import classifier, denoiser, feature_network, loop, ranks
from spatial_functa_pipeline.training import field as field_training
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.run import TrainingRun

CUDA = torch.device("cuda")
FLOAT32, TF32, BF16 = ("highest", False, False), ("high", True, False), ("highest", False, True)
SWITCHES = {"float32": FLOAT32, "tf32": TF32, "bf16": BF16}
SHAPE = LatentShape((4, 4), 4)
NO_NETWORKS = (Normaliser, ranks.Objective)
"""Modules without products of their own."""


def switches():
    """TensorFloat-32 for matrices and for convolutions, and whether products are rounded to bfloat16."""
    matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    return matrices, convolutions, torch.is_autocast_enabled("cpu")


@pytest.fixture(autouse=True)
def left_on():
    """As a careless program leaves the switches: what is exact must turn them off, and must leave them so in the end."""
    before = switches()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    after = switches()
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    assert after == TF32


@pytest.fixture
def seen(monkeypatch):
    """The switches at all evaluations of networks, in training mode and not, and at all backward passes."""
    seen, backward = {"training": set(), "evaluation": set(), "backward": set()}, torch.Tensor.backward

    def look(loss, *arguments, **options):
        seen["backward"].add(switches())
        return backward(loss, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "backward", look)

    def note(network, _):
        if not isinstance(network, NO_NETWORKS):
            seen["training" if network.training else "evaluation"].add(switches())

    hook = modules.register_module_forward_pre_hook(note)
    yield seen
    hook.remove()


@pytest.fixture
def as_on_cuda(monkeypatch):
    """The switches are set as on a CUDA device that has all kinds of product."""
    for module in (loop, encoding, decoding, sampling_module):
        monkeypatch.setattr(module, "tf32_products", lambda precision, _: compute.tf32_products(precision, CUDA))
    monkeypatch.setattr(compute, "has_bf16_products", lambda device: True)
    for module in (classifier, denoiser):
        monkeypatch.setattr(module, "available_precision", lambda precision, *_: precision)


def train(kind, precision, folder):
    """Two steps of a training, validated after each."""
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "validate_every": 1, "checkpoint_every": 2}
    run = TrainingRun(0, tiny.RUNTIME, Checkpoint(folder / f"{kind}.pt"))
    if kind == "field":
        config = tiny.field_config(**training, warmup_steps=0)
        config = config.model_copy(update={"field": config.field.model_copy(update={"precision": precision})})
        return field_training.train_field(tiny.images(8, 0), tiny.images(4, 1), config, run=run)
    if kind == "feature_network":
        return feature_network.train_feature_network(
            tiny.images(8, 0), tiny.images(4, 1), TrainingConfig(**training), run=run
        )
    if not (folder / "train.zarr").exists():
        tiny.write_functasets(folder)
    functasets = (Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation"))
    given = (*functasets, Normaliser.by_scale(1.0))
    config = {"classifier": tiny.transformer, "denoiser": tiny.unet}[kind](**training)
    config = config.model_copy(update={"precision": precision})
    function = {"classifier": classifier.train_classifier, "denoiser": denoiser.train_denoiser}[kind]
    return function(*given, config, num_classes=2, run=run)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *((kind, precision) for kind in ("classifier", "denoiser") for precision in SWITCHES),
        ("field", "float32"),
        ("field", "tf32"),
        ("feature_network", "float32"),
    ],
)
def test_a_training_has_the_products_that_its_precision_says(seen, as_on_cuda, tmp_path, kind, precision):
    train(kind, precision, tmp_path)
    assert seen["training"] == {SWITCHES[precision]}
    assert seen["backward"] == {TF32 if precision == "tf32" else FLOAT32}  # rounding to bf16 is the graph's own
    assert seen["evaluation"] == {TF32 if (kind, precision) == ("field", "tf32") else FLOAT32}


@pytest.mark.parametrize("kind", ["classifier", "denoiser", "field"])
def test_on_a_cpu_tf32_is_float32_and_is_said_to_be(seen, caplog, tmp_path, kind):
    caplog.set_level("INFO")
    train(kind, "tf32", tmp_path)
    assert seen["training"] == seen["backward"] == seen["evaluation"] == {FLOAT32}
    assert f"{kind}: TensorFloat-32 is CUDA's; precision tf32 means float32 here" in caplog.messages


def test_a_denoiser_trained_in_bf16_is_another_and_its_weights_stay_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "has_bf16_products", lambda device: True)
    trained = {}
    for precision in ("float32", "bf16"):
        (tmp_path / precision).mkdir()
        model, history, _ = train("denoiser", precision, tmp_path / precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        trained[precision] = history.loss.iloc[-1]
    assert trained["bf16"] != trained["float32"]
    assert trained["bf16"] == pytest.approx(trained["float32"], rel=0.02)


@pytest.mark.parametrize("kind", ["classifier", "denoiser"])
def test_a_checkpoint_of_another_precision_is_not_continued(tmp_path, caplog, kind):
    caplog.set_level("INFO")
    train(kind, "float32", tmp_path)
    train(kind, "float32", tmp_path)
    assert any("going on from the checkpoint at step 2" in message for message in caplog.messages)
    caplog.clear()
    train(kind, "bf16", tmp_path)
    assert not any("going on" in message for message in caplog.messages)
    assert any("starting anew" in message for message in caplog.messages)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_encoding_and_decoding_have_the_products_of_the_field(seen, as_on_cuda, precision):
    torch.manual_seed(0)
    field = SpatialField(
        FieldSpec(LatentShape((2, 2), 4), (8, 8), 1, "nearest", 16, 3, 10.0, precision=precision)
    ).eval()
    config = FunctasetConfig(augmented_copies=0, shard_rows=8, chunk_rows=8, encode_batch=4)
    names = {"dataset": "d", "split": "train", "copies": 0, "fingerprint": "f", "seed": 0}
    plan = encoding.plan_functaset(tiny.images(6, 0), field, config, runtime=tiny.RUNTIME, **names)
    latents = torch.from_numpy(plan.encode(0, 6).latents)
    expected = TF32 if precision == "tf32" else FLOAT32
    assert seen["evaluation"] == {expected}
    decode, inside = field.decode, []
    field.decode = lambda *arguments: inside.append(switches()) or decode(*arguments)
    decoding.decode(field, latents)
    assert inside == [expected]


@pytest.mark.parametrize("precision", SWITCHES)
def test_sampling_has_its_own_precision_which_is_kept_with_the_samples(seen, as_on_cuda, monkeypatch, precision):
    monkeypatch.setattr(
        "spatial_functa_pipeline.evaluation.samples.available_precision", lambda precision, *_: precision
    )
    process = tiny.unet().model_copy(update={"precision": "bf16"})  # of its training
    model = build_denoiser(process, SHAPE, 2).eval()
    sampling = SamplingConfig(samples=2, batch_size=2, sampler="ddim", steps=2, precision=precision)
    like = FunctasetHeader("toy", "train", SHAPE, "nearest", 10)
    names = {"dataset": "d", "fingerprint": "f", "seed": 0, "runtime": tiny.RUNTIME}
    plan = plan_samples(model, Normaliser.by_scale(1.0), process, sampling, like, **names)
    assert plan.encode(0, 2).latents.dtype == np.float32
    assert seen["evaluation"] == {SWITCHES[precision]}
    assert plan.header.settings["precision"] == precision


def test_samples_say_that_they_are_float32_where_there_is_no_other(monkeypatch):
    monkeypatch.setattr(compute, "has_bf16_products", lambda device: False)
    process, like = tiny.unet(), FunctasetHeader("toy", "train", SHAPE, "nearest", 10)
    sampling = SamplingConfig(samples=2, batch_size=2, steps=2, precision="bf16")
    names = {"dataset": "d", "fingerprint": "f", "seed": 0, "runtime": tiny.RUNTIME}
    plan = plan_samples(build_denoiser(process, SHAPE, 2), Normaliser.by_scale(1.0), process, sampling, like, **names)
    assert plan.header.settings["precision"] == "float32"
    assert plan.encode.sampling.precision == "float32"


def test_features_and_neighbours_are_float32s(seen):
    FeatureSet.of(ConvNetFeatures(FeatureNetwork(1, 2)), [torch.rand(2, 8, 8, 1)], pairs=2)
    assert seen["evaluation"] == {FLOAT32}
    images, inside = torch.randint(0, 256, (20, 8, 8, 1), dtype=torch.uint8), []

    def read(rows):
        inside.append(switches())
        return images[torch.from_numpy(rows)]

    nearest_images(images[:2], read, 20, 1)
    assert set(inside) == {FLOAT32}
