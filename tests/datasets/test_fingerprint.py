"""Freshness of single datasets; the flow of fingerprints through the pipelines is tested end to end."""

import json

import pytest
from kedro.io import DatasetError

from spatial_functa_pipeline.datasets.fingerprint import Fingerprint
from spatial_functa_pipeline.datasets.reporting import JSONDataset

MADE = Fingerprint("train", {"training.steps": 10, "seed": 0}, {"functaset": "abc"})


@pytest.fixture
def dataset(tmp_path):
    dataset = JSONDataset(filepath=str(tmp_path / "metrics.json"))
    dataset.expected = MADE
    return dataset


def test_an_output_exists_as_long_as_its_fingerprint_is_the_expected_one(dataset):
    assert not dataset.exists()
    dataset.save({"psnr": 30})
    assert dataset.exists()
    assert dataset.load() == {"psnr": 30}
    dataset.expected = Fingerprint("train", {"training.steps": 20, "seed": 0}, {"functaset": "abc"})
    assert not dataset.exists()


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Fingerprint("train", {"training.steps": 20, "seed": 0}, MADE.inputs), "training.steps was 10, is 20"),
        (Fingerprint("train", {"seed": 0}, MADE.inputs), "training.steps was 10, is None"),
        (Fingerprint("train", MADE.parameters, {"functaset": "def"}), "functaset was made anew or differs"),
        (Fingerprint("other", MADE.parameters, MADE.inputs), "node train → other"),
    ],
)
def test_loading_a_stale_output_names_the_difference(dataset, expected, message):
    dataset.save({"psnr": 30})
    dataset.expected = expected
    with pytest.raises(DatasetError, match=message):
        dataset.load()


def test_a_save_that_fails_leaves_no_fingerprint_of_the_new_content(dataset, tmp_path):
    dataset.save({"psnr": 30})
    with pytest.raises(DatasetError):
        dataset.save({"psnr": object()})
    assert not dataset.exists()


def test_an_output_without_a_record_counts_as_missing_but_can_be_loaded(dataset, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"psnr": 1}))
    assert not dataset.exists()
    assert dataset.load() == {"psnr": 1}


def test_without_an_expectation_it_is_the_plain_dataset(tmp_path):
    dataset = JSONDataset(filepath=str(tmp_path / "metrics.json"))
    dataset.save({"psnr": 30})
    assert dataset.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_digests_tell_apart_everything_and_do_not_depend_on_order():
    same = Fingerprint("train", {"seed": 0, "training.steps": 10}, {"functaset": "abc"})
    assert same.digest == MADE.digest
    others = [
        Fingerprint("eval", MADE.parameters, MADE.inputs),
        Fingerprint("train", {**MADE.parameters, "seed": 1}, MADE.inputs),
        Fingerprint("train", MADE.parameters, {"functaset": "abd"}),
    ]
    assert len({MADE.digest, *(other.digest for other in others)}) == 4
