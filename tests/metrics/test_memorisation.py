"""Counts of distinct training images against the law of independent draws, and a model that copies."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS, distinct_draws, memorisation_table, share_nearer
from spatial_functa_pipeline.metrics.neighbours import Neighbours, nearest_images


def test_the_papers_expectation():
    """3161 ± 34 for 5,000 draws of 5,000 (Tab. 7); the 34 takes the images as independent, the exact deviation is 22."""
    law = distinct_draws(5000, 5000)
    assert round(law.mean) == 3161
    assert round(law.independent_std) == 34
    assert round(law.std) == 22


@pytest.mark.parametrize(("population", "draws"), [(5000, 5000), (50, 20), (3, 40)])
def test_the_law_is_that_of_simulated_draws(population, draws):
    generator = np.random.default_rng(0)
    counts = np.array([len(np.unique(generator.integers(0, population, draws))) for _ in range(2000)])
    law = distinct_draws(population, draws)
    assert counts.mean() == pytest.approx(law.mean, abs=5 * max(law.std, 1e-9) / np.sqrt(2000))
    assert counts.std() == pytest.approx(law.std, rel=0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("population", "draws", "mean", "std"), [(1, 1, 1, 0), (1, 5, 1, 0), (7, 1, 1, 0), (7, 0, 0, 0), (2, 2, 1.5, 0.5)]
)
def test_small_cases(population, draws, mean, std):
    law = distinct_draws(population, draws)
    assert (law.mean, law.std) == (pytest.approx(mean), pytest.approx(std, abs=1e-7))


@pytest.mark.parametrize(("population", "draws"), [(0, 1), (3, -1)])
def test_nothing_to_draw_from_is_an_error(population, draws):
    with pytest.raises(ValueError, match="draws of"):
        distinct_draws(population, draws)


def test_share_nearer_is_the_probability_of_a_smaller_distance():
    assert share_nearer(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert share_nearer(np.array([5.0]), np.array([3.0, 4.0])) == 0
    assert share_nearer(np.array([2.0]), np.array([1.0, 2.0, 3.0, 3.0])) == pytest.approx((2 + 0.5) / 4)


def random_images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 4, 4, 1), dtype=torch.uint8, generator=generator)


@pytest.fixture
def table():
    """A model that has copied 20 training images of class 0 and 5 of class 1, beside honest test images."""
    train, train_labels = random_images(400, seed=0), np.arange(400) % 2
    chosen = np.concatenate([np.arange(0, 40, 2), np.arange(1, 11, 2)])
    drawn = np.repeat(chosen, 4)  # each of them four times: 100 samples
    copies, labels = train[drawn], train_labels[drawn]
    test, test_labels = random_images(200, seed=1), np.arange(200) % 2

    def search(images):
        return nearest_images(images, lambda rows: train[torch.from_numpy(rows)], len(train), neighbours=1)

    found = {
        "samples": (search(copies), labels),
        "test_images": (search(test), test_labels),
        "unlabelled": (search(test), None),
    }
    return memorisation_table(found, "test_images", train_labels, ["a", "b"]).set_index(["images", "class"])


def test_a_copier_is_found_out(table):
    copier = table.loc[("samples", EVERY_CLASS)]
    assert (copier["count"], copier["distinct"], copier["train_images"]) == (100, 25, 400)
    assert (copier["median_distance"], copier["nearer_than_test"], copier["near_copies"]) == (0, 1, 1)
    law = distinct_draws(400, 100)
    assert (copier["expected"], copier["expected_std"]) == (law.mean, law.std)
    assert copier["distinct"] < law.mean - 10 * law.std


def test_classes_are_counted_by_themselves(table):
    assert table.loc[("samples", "a"), ["count", "distinct", "train_images"]].tolist() == [80, 20, 200]
    assert table.loc[("samples", "b"), ["count", "distinct", "train_images"]].tolist() == [20, 5, 200]
    assert table.loc[("samples", "a"), "same_class"] == 1
    assert 0.3 < table.loc[("test_images", EVERY_CLASS), "same_class"] < 0.7


def test_images_that_were_never_seen_are_the_measure(table):
    honest = table.loc[("test_images", EVERY_CLASS)]
    assert honest["nearer_than_test"] == pytest.approx(0.5)
    assert honest["near_copies"] == pytest.approx(0.01, abs=0.006)
    assert honest["median_distance"] > 0


def test_an_unconditional_model_has_no_classes(table):
    rows = table.loc["unlabelled"]
    assert list(rows.index) == [EVERY_CLASS]
    assert np.isnan(rows["same_class"].iloc[0])


def test_a_class_without_training_images_expects_none():
    neighbours = Neighbours(np.array([[0], [1]]), np.array([[0.1], [0.2]]))
    table = memorisation_table(
        {"test_images": (neighbours, np.array([0, 1]))}, "test_images", np.array([0, 0]), ["a", "b"]
    )
    assert table.set_index("class").loc["b", ["train_images", "expected"]].tolist() == [0, 0]


def test_the_single_class_of_a_folder_is_counted_once():
    neighbours = Neighbours(np.array([[0], [1]]), np.array([[0.1], [0.2]]))
    found = {"test_images": (neighbours, np.array([0, 0]))}
    table = memorisation_table(found, "test_images", np.array([0, 0]), ["all"])
    assert table["class"].tolist() == [EVERY_CLASS]
