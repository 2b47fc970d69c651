"""A folder of pictures as it is: classes are counted, and with a single one there is nothing to classify."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, UNetConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.evaluation.samples import plan_samples
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.denoisers import build_denoiser
from spatial_functa_pipeline.pipelines.classification import nodes as latents

RUNTIME = RuntimeConfig(device="cpu", progress=False)
TINY = {
    "meta_learning.field": {"width": 32, "depth": 3},
    "meta_learning.training": {"steps": 6, "warmup_steps": 2},
    "functaset": {"augmented_copies": 1},
    "classification.transformer": {"blocks": 1},
    "classification.training": {"steps": 2, "batch_size": 16, "warmup_steps": 2},
    "diffusion.unet": {"channels": 32, "head_dim": 32},
    "diffusion.training": {"steps": 2, "batch_size": 16, "warmup_steps": 2},
    "evaluation.sampling": {"samples": 12, "batch_size": 12, "steps": 2},
    "evaluation.frechet.feature_network": {"steps": 4, "batch_size": 16, "warmup_steps": 2},
    "runtime": {"num_workers": 0, "progress": "false", "device": "cpu"},
}


class OneClass:
    """A functaset of it, of which nothing else is looked at."""

    num_classes = 1


def test_a_single_class_is_not_classified():
    images = Images.from_array(np.zeros((3, 4, 4, 1), np.uint8), [0, 0, 0], ("all",))
    weights, history = latents.train_latent_classifier(OneClass(), OneClass(), None, None, None, 0, RUNTIME)
    measured = latents.evaluate_classifier(OneClass(), images, weights, 0, RUNTIME)
    assert (weights.tensors, len(history), list(history)) == ({}, 0, ["step"])
    metrics, by_class, confusion, figure = measured
    assert metrics == {"details": {}}
    assert (len(by_class), len(confusion)) == (0, 0)
    assert {"class", "accuracy"} <= set(by_class)
    assert "true_class" in confusion
    assert "nothing to classify" in figure.texts[0].get_text()


def test_a_denoiser_of_one_class_is_unconditional_and_its_samples_are_not_guided():
    config = DiffusionConfig(
        unet=UNetConfig(channels=32, multipliers=(1,), residual_blocks=1),
        mlp=DenoiserMLPConfig(width=16, blocks=1),
        timesteps=10,
        training=TrainingConfig(steps=1, batch_size=1, learning_rate=1.0),
    )
    assert config.for_classes(2) == config
    single = config.for_classes(1)
    assert not single.conditional
    shape = LatentShape((1, 1), 3)
    denoiser = build_denoiser(single, shape, 1).eval()
    assert denoiser.num_classes is None
    sampling = SamplingConfig(samples=4, steps=2, guidance_scale=3.0, guidance_interval=(0.1, 2.0), batch_size=4)
    header = FunctasetHeader("mine", "train", shape, "nearest", 4)
    normaliser = Normaliser(torch.zeros(()), torch.ones(()), torch.tensor(3.0))
    plan = plan_samples(
        denoiser, normaliser, single, sampling, header, dataset="mine", fingerprint="", seed=0, runtime=RUNTIME
    )
    assert plan.header.settings["guidance_scale"] is None
    assert plan.header.settings["classes"] is None
    assert plan.header.settings["network_evaluations"] == 2  # guided, they would be four
    assert (plan.encode(0, 4).labels == -1).all()


def parameters(**others):
    flat = [f"{block}.{key}={value}" for block, values in TINY.items() for key, value in values.items()]
    return ",".join([*flat, *(f"{key}={value}" for key, value in others.items())])


@pytest.mark.slow
def test_a_folder_of_pictures_runs_as_it_is(empty_project):
    """The template without an edit, on ten pictures of one class."""
    project, generator = empty_project, np.random.default_rng(0)
    folder = project.path / "my pictures"
    folder.mkdir()
    for number in range(10):
        smooth = Image.fromarray(generator.integers(0, 256, (3, 4, 3), np.uint8)).resize((70, 80))
        smooth.save(folder / f"{number}.{('png', 'jpg', 'gif')[number % 3]}")
    (folder / "notes.txt").write_text("left out")
    run = ("run", "--env", "image_folder", "--params", parameters(data_path=folder))
    output = project.kedro(*run)
    assert output.count("left out 1 .txt file") == 1
    (report,) = project.path.glob("data/08_reporting/image_folder/*/*/metrics.json")
    found = json.loads(report.read_text())
    assert "top1_accuracy" not in found
    assert "top1_accuracy" not in output.partition("measured on")[2]
    assert found["psnr"] > 5
    assert all(np.isfinite(value) for value in found.values() if isinstance(value, float))
    (confusions,) = project.path.glob("data/08_reporting/image_folder/**/confusion_matrix.csv")
    assert len(pd.read_csv(confusions)) == 0
    assert "Nothing to do: everything is up to date" in project.kedro(*run, "--only-missing-outputs")
    assert "frechet_distance_convnet_to_test" not in found  # of a single test image
    record = project.path / "data/02_intermediate/image_folder/checked_files"
    assert record.stat().st_size == 10 * 8
    broken = folder / "0.png"
    broken.write_bytes(broken.read_bytes()[:50])
    output = project.kedro(*run, check=False, COLUMNS="1000")
    assert "Nothing was run:" in output
    assert "1 of 10 image files cannot be decoded" in output
    assert "replace or remove these files, and run the same command again" in output
