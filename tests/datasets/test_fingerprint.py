"""Freshness of single datasets; the flow of fingerprints through the pipelines is tested end to end."""

import json
import os
import time
from types import SimpleNamespace

import pandas as pd
import pytest
from kedro.io import AbstractDataset, DatasetError

from spatial_functa_pipeline.datasets.fingerprint import Fingerprint, FingerprintMixin
from spatial_functa_pipeline.datasets.reporting import HistoryDataset, MetricsDataset

MADE = Fingerprint("train", {"training.steps": 10, "seed": 0}, {"functaset": "abc"})


@pytest.fixture
def dataset(tmp_path):
    dataset = MetricsDataset(filepath=str(tmp_path / "metrics.json"))
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


@pytest.mark.parametrize(
    ("made", "phrases"),
    [
        ({"denoiser.steps": 10, "field.width": 8}, ["denoiser.steps was 10, is 20"]),
        ({"denoiser.steps": 20, "field.width": 8}, ["samples was made anew or differs"]),  # the cause is no parameter
        ({}, ["samples was made anew or differs"]),  # a record of an older version
    ],
)
def test_a_change_far_upstream_is_named_too(made, phrases):
    now = Fingerprint("evaluate", {"seed": 0}, {"samples": "def"}, {"denoiser.steps": 20, "field.width": 8})
    assert Fingerprint("evaluate", {"seed": 0}, {"samples": "abc"}, made).differences(now) == phrases


def test_a_save_that_fails_leaves_no_fingerprint_of_the_new_content(dataset, tmp_path):
    dataset.save({"psnr": 30})
    with pytest.raises(DatasetError):
        dataset.save({"psnr": object()})
    assert not dataset.exists()


def test_an_output_without_a_record_counts_as_missing_but_can_be_loaded(dataset, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"psnr": 1}))
    assert not dataset.exists()
    assert dataset.load() == {"psnr": 1}


def test_a_record_that_cannot_be_read_counts_as_none(dataset, tmp_path):
    dataset.save({"psnr": 30})
    (tmp_path / ".metrics.json.fingerprint.json").write_text('{"node": ')
    assert dataset.outdated() == "without a record of what it was made from"
    assert dataset.load() == {"psnr": 30}


def test_without_an_expectation_it_is_the_plain_dataset(tmp_path):
    dataset = MetricsDataset(filepath=str(tmp_path / "metrics.json"))
    dataset.save({"psnr": 30})
    assert dataset.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_new_parameter_that_is_null_changes_nothing():
    more = Fingerprint("train", {**MADE.parameters, "convnet": None}, MADE.inputs)
    assert more.digest == MADE.digest
    assert more.differences(MADE) == MADE.differences(more) == []
    less = Fingerprint("train", {**MADE.parameters, "seed": None}, MADE.inputs)
    assert less.digest != MADE.digest
    assert MADE.differences(less) == ["seed was 0, is None"]


def test_digests_tell_apart_everything_and_do_not_depend_on_order():
    same = Fingerprint("train", {"seed": 0, "training.steps": 10}, {"functaset": "abc"})
    assert same.digest == MADE.digest
    others = [
        Fingerprint("eval", MADE.parameters, MADE.inputs),
        Fingerprint("train", {**MADE.parameters, "seed": 1}, MADE.inputs),
        Fingerprint("train", MADE.parameters, {"functaset": "abd"}),
    ]
    assert len({MADE.digest, *(other.digest for other in others)}) == 4


# Contents


@pytest.fixture
def chain(tmp_path):
    """field → functaset → classifier → metrics, each made from the one before it, and all stored."""
    chain, before = {}, {}
    for name in ("field", "functaset", "classifier", "metrics"):
        chain[name] = MetricsDataset(filepath=str(tmp_path / f"{name}.json"))
        chain[name].expected, chain[name].sources = Fingerprint(f"make_{name}"), before
        chain[name].save({"content": name})
        before = {name: chain[name]}
    return SimpleNamespace(**chain)


def stale(chain):
    return [name for name, dataset in vars(chain).items() if not dataset.exists()]


def test_a_chain_is_fresh_as_it_was_made_and_when_the_same_is_made_again(chain):
    assert stale(chain) == []
    for dataset in (chain.field, chain.functaset):
        dataset.save(dataset.load())
        assert stale(chain) == []


def test_an_input_made_again_with_other_content_makes_all_after_it_stale(chain):
    chain.functaset.save({"content": "of another machine"})
    assert stale(chain) == ["classifier", "metrics"]
    reason = "functaset is not the one that classifier.json was made from: it was made again or replaced"
    for dataset in (chain.classifier, chain.metrics):
        assert dataset.staleness() == [reason]
        with pytest.raises(DatasetError, match=f"{dataset._file_name} is stale: {reason}"):
            dataset.load()
    chain.classifier.save({"content": "classifier"})
    assert stale(chain) == []  # the classifier came out the same, so its metrics are those of now


def test_an_input_replaced_together_with_its_record_is_noticed(chain, tmp_path):
    other = MetricsDataset(filepath=str(tmp_path / "elsewhere" / "field.json"))
    other.expected = chain.field.expected
    other.save({"content": "of another machine"})
    for path in (tmp_path / "elsewhere").iterdir():
        path.replace(tmp_path / path.name)
    assert chain.field.load() == {"content": "of another machine"}
    assert stale(chain) == ["functaset", "classifier", "metrics"]


def test_a_file_edited_beside_its_record_is_noticed(chain, tmp_path):
    path = tmp_path / "functaset.json"
    path.write_text(path.read_text().replace("functaset", "functasex"))  # of the same size
    assert stale(chain) == ["functaset", "classifier", "metrics"]
    with pytest.raises(DatasetError, match=r"functaset\.json was changed or replaced by hand, but not its record"):
        chain.functaset.load()
    with pytest.raises(DatasetError, match=r"functaset is not the one that classifier\.json was made from"):
        chain.classifier.load()


def test_a_file_that_was_only_touched_is_the_same(chain, tmp_path):
    for path in tmp_path.glob("*.json"):
        os.utime(path, (1, 1))
    assert stale(chain) == []


def test_the_content_of_an_unchanged_file_is_not_read_again(chain, tmp_path, monkeypatch):
    digest = chain.field.content_digest()
    record = chain.field._read_record()
    monkeypatch.setattr(chain.field, "_read_record", lambda: {**record, "content": "as recorded"})
    assert chain.field.content_digest() == "as recorded"
    os.utime(tmp_path / "field.json", (1, 1))
    assert chain.field.content_digest() == digest


def test_missing_inputs_make_nothing_stale_but_are_looked_through(chain, tmp_path):
    (tmp_path / "functaset.json").unlink()
    (tmp_path / "classifier.json").unlink()
    assert stale(chain) == ["functaset", "classifier"]
    chain.field.save({"content": "of another machine"})
    assert stale(chain) == ["functaset", "classifier", "metrics"]
    assert chain.metrics.staleness() == [
        "field is not the one that metrics.json was made from: it was made again or replaced"
    ]


def test_what_was_loaded_is_recorded_not_what_replaced_it_meanwhile(chain, tmp_path):
    """A training loads its functaset, and hours later somebody builds another one while it goes on."""
    chain.functaset.load()
    elsewhere = MetricsDataset(filepath=str(tmp_path / "functaset.json"))
    elsewhere.expected = chain.functaset.expected
    elsewhere.save({"content": "of another session"})
    chain.classifier.save({"content": "classifier"})
    assert stale(chain) == ["classifier", "metrics"]


def test_the_content_of_a_folder_is_all_of_its_files(tmp_path):
    class FolderDataset(FingerprintMixin, AbstractDataset):
        def __init__(self, filepath):
            self._filepath = filepath

        def save(self, data):
            for name, content in data.items():
                path = self._filepath / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)

        def load(self):
            return {}

        def _exists(self):
            return self._filepath.exists()

        def _describe(self):
            return {}

    digests = set()
    contents = ({"a": "1", "b/c": "2"}, {"a": "1", "b/d": "2"}, {"a": "12", "b/c": ""}, {"a": "1"})
    for number, content in enumerate(contents):
        dataset = FolderDataset(tmp_path / str(number))
        dataset.expected = Fingerprint("make")
        dataset.save(content)
        digests.add(dataset.content_digest())
        (tmp_path / str(number) / "a").write_text("3")
        assert dataset.content_digest() not in digests
    assert len(digests) == len(contents)


def test_a_record_can_be_kept_elsewhere(tmp_path):
    class Elsewhere(MetricsDataset):
        record = None

        def _read_record(self):
            return self.record

        def _write_record(self, record):
            self.record = record

    dataset = Elsewhere(filepath=str(tmp_path / "metrics.json"))
    dataset.expected = MADE
    dataset.save({"psnr": 30})
    assert dataset.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    dataset.expected = Fingerprint("other")
    assert not dataset.exists()


def seconds_of(dataset, data, begun):
    dataset.expected, dataset.begun = Fingerprint("node", {"a": 1}), begun
    dataset.save(data)
    made_by, seconds = dataset.last_making()
    assert made_by == dataset.expected
    return seconds


def test_a_record_says_how_long_it_took(tmp_path):
    metrics = MetricsDataset(filepath=str(tmp_path / "metrics.json"))
    assert metrics.last_making() is None
    assert 5 <= seconds_of(metrics, {"psnr": 30.0}, time.monotonic() - 5) < 60
    metrics.begun = None  # saved by nobody's node
    metrics.save({"psnr": 31.0})
    assert metrics.last_making() is None


@pytest.mark.parametrize(("rows", "seconds"), [([10.0, 300.0], 300), ([1.0, 2.0], 5), ([], 5)])
def test_a_history_has_the_time_before_an_interruption_too(tmp_path, rows, seconds):
    """The node's own time counts where it was longer, or where there was nothing to train."""
    history = HistoryDataset(filepath=str(tmp_path / "history.csv"))
    table = pd.DataFrame({"step": range(len(rows)), "seconds": rows}) if rows else pd.DataFrame(columns=["step"])
    assert seconds_of(history, table, time.monotonic() - 5) == pytest.approx(seconds, abs=3)
