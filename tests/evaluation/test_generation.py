"""The scores of samples: names, checksum and settings beside the numbers, whatever the features."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.evaluation.decoding import decoded
from spatial_functa_pipeline.evaluation.generation import score_samples
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet
from spatial_functa_pipeline.metrics.features import InceptionFeatures
from spatial_functa_pipeline.metrics.seams import SeamSteps

CONFIG = FieldConfig(latent_shape="2x2x3", interpolation="nearest", resolution=(8, 8), channels=1, width=8, depth=2)
SETTINGS = {"sampler": "ddpm", "steps": 1000, "network_evaluations": 2000, "guidance_scale": 2.0, "classes": "in turn"}


class FewInceptionFeatures(InceptionFeatures):
    """Eight numbers of each image under Inception's name: its weights are 96 MB that need a network."""

    width = 8

    def __init__(self):
        self.name, self.weights_sha256 = "inception", "6726825d" + 56 * "0"

    def __call__(self, images):
        return images[:, :8].flatten(1)[:, ::8].float()


def score(tmp_path, settings, labels, held_out=0, test=30, resamples=20):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(20, 2, 2, 3, generator=generator).numpy()
    header = FunctasetHeader("d", "samples", LatentShape.parse("2x2x3"), "nearest", 20, settings=settings)
    write(
        tmp_path / "samples.zarr", FunctasetPlan(header, lambda a, b: Rows.of_samples(latents[a:b], labels[a:b]), False)
    )
    torch.manual_seed(0)
    return score_samples(
        Functaset.open(tmp_path / "samples.zarr"),
        SpatialField(CONFIG.spec).eval(),
        FewInceptionFeatures(),
        {name: features(count, generator) for name, count in (("train", 60), ("test", test))},
        {name: features(20, generator) for name in ("train_images", "test_images", "reconstructions", "noise")},
        pair_images=12,
        interval_resamples=resamples,
        held_out=held_out,
        seed=5,
    )


def features(count, generator):
    return FeatureSet.of(FewInceptionFeatures(), [torch.rand(count, 8, 8, 1, generator=generator)], count)


@pytest.fixture
def scored(tmp_path):
    return score(tmp_path, {**SETTINGS, "guidance_interval": [0.3, 3.0]}, np.arange(20) % 2)


def test_inceptions_scores_have_their_plain_names_and_the_checksum_beside_them(scored):
    metrics, table, _ = scored
    names = {f"{name}_to_{real}" for name in ("fid", *SCORES[1:]) for real in ("train", "test")}
    points = {f"fid_{name}_to_{real}" for name in ("reconstructions", "noise") for real in ("train", "test")}
    points |= {"fid_train_images_to_test", "fid_test_images_to_train"}
    assert set(metrics) == names | points | {"seam_ratio_samples", "details", "intervals"}
    assert set(metrics["details"]) == set(metrics) - {"details", "intervals"}
    assert all("seed 5" in text for text in metrics["details"].values())
    assert all("weights 6726825d" in text for name, text in metrics["details"].items() if "_to_" in name)
    assert (table["feature_weights_sha256"] == "6726825d" + 56 * "0").all()
    assert "unbiased" in metrics["details"]["kid_to_test"]


def test_every_score_has_its_interval_in_the_metrics_and_in_the_table(scored, tmp_path):
    metrics, table, _ = scored
    sampled = table[table["images"] == "samples"].set_index("against")
    assert set(metrics["intervals"]) == set(metrics["details"]) - {"seam_ratio_samples"}
    for name, (low, high) in metrics["intervals"].items():
        assert low <= metrics[name] <= high, name
    for one in SCORES:
        name = f"{'fid' if one == 'frechet_distance' else one}_to_test"
        assert metrics["intervals"][name] == [sampled.loc["test", f"{one}_{bound}"] for bound in ("low", "high")]
    assert metrics["intervals"]["fid_to_train"][1] > metrics["fid_to_train"]
    (tmp_path / "again").mkdir()
    again, _, _ = score(tmp_path / "again", {**SETTINGS, "guidance_interval": [0.3, 3.0]}, np.arange(20) % 2)
    assert again["intervals"] == metrics["intervals"]  # by the seed
    without, _, _ = score(tmp_path / "without", SETTINGS, np.arange(20) % 2, resamples=None)
    assert set(without["intervals"]) == {name for name in metrics["intervals"] if name.startswith(("fid", "kid"))}


def test_a_distance_says_how_many_images_of_which_kind_it_was_taken_to(scored, tmp_path):
    metrics, _, _ = scored
    assert "to 30 test images" in metrics["details"]["fid_to_test"]
    assert "to 60 training images, seed 5" in metrics["details"]["fid_to_train"]
    assert "20 decoded noise, to 60 training images" in metrics["details"]["fid_noise_to_train"]
    (tmp_path / "other").mkdir()
    held, _, _ = score(tmp_path / "other", SETTINGS, np.arange(20) % 2, held_out=7)
    assert "to 60 training images, 7 of them held out, seed 5" in held["details"]["fid_to_train"]
    assert "held out" not in held["details"]["fid_to_test"]


def test_seams_of_the_samples_are_those_of_their_pictures(scored, tmp_path):
    metrics, _, _ = scored
    torch.manual_seed(0)
    steps = SeamSteps((2, 2))
    steps.update(next(decoded(Functaset.open(tmp_path / "samples.zarr"), SpatialField(CONFIG.spec).eval())))
    assert metrics["seam_ratio_samples"] == pytest.approx(steps.ratio())
    detail = metrics["details"]["seam_ratio_samples"]
    assert detail.startswith("20 samples by ddpm in 1000 steps")
    assert detail.endswith(f"by axis {', '.join(f'{ratio:.3f}' for ratio in steps.ratios_by_axis())}")


def test_how_samples_were_drawn_stands_beside_their_scores(scored):
    metrics, table, _ = scored
    detail = metrics["details"]["fid_to_train"]
    assert detail.startswith(
        "20 samples by ddpm in 1000 steps (2000 evaluations), guidance 2.0 at noise levels 0.3 to 3"
    )
    assert "classes in turn, to 60 training images" in detail
    sampled = table[table["images"] == "samples"]
    assert {name: set(sampled[name]) for name in SETTINGS} == {name: {value} for name, value in SETTINGS.items()}


def test_pairs_are_bounded_and_as_many_of_each_set(scored):
    metrics, table, _ = scored
    assert set(table["count_pairs"]) == set(table["count_pairs_against"]) == {12}
    assert set(table["count"]) == {20}
    assert set(table["count_against"]) == {30, 60}
    assert metrics["details"]["recall_to_test"].startswith("12 samples")


def test_unconditional_samples_say_so(tmp_path):
    settings = SETTINGS | {"guidance_scale": None, "classes": None}
    metrics, _, _ = score(tmp_path, settings, np.full(20, -1))
    assert "(2000 evaluations), unconditional, to 30 test images" in metrics["details"]["fid_to_test"]


def test_what_too_few_images_cannot_give_is_no_metric(tmp_path, scored):
    metrics, table, _ = score(tmp_path / "few", SETTINGS, np.arange(20) % 2, test=4)
    missing = {f"{name}_to_test" for name in ("precision", "recall", "density", "coverage")}
    assert set(metrics) == set(scored[0]) - missing
    assert missing < set(scored[0])
    assert set(metrics["details"]) == set(metrics) - {"details", "intervals"}
    few = table[table["against"] == "test"]
    assert few["recall"].isna().all()
    assert few["kid"].notna().all()
