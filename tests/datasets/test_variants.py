"""What is on disk, variant by variant, and what may be removed of it."""

import json

import pytest

from spatial_functa_pipeline.datasets.variants import find_variants, matching, record_of, removable, remove

PRESET, CHANGED = "toy/4x4x8-nearest", "toy/4x4x8-nearest/diffusion.normalisation.gamma=2.5"


@pytest.fixture
def data(tmp_path):
    """A preset's run, and one with another γ that shares its field and functaset."""

    def make(place, layer, name, digest, *sources, content="x"):
        path = tmp_path / layer / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zarr"):
            path.mkdir()
            (path / "zarr.json").write_text(content)
        else:
            path.write_text(content)
        record = {"content": digest, "sources": {f"source {index}": one for index, one in enumerate(sources)}}
        record_of(path).write_text(json.dumps(record))

    make(PRESET, "06_models", "field.safetensors", "f")
    make(PRESET, "05_model_input", "train_functaset.zarr", "t", "f")
    make(PRESET, "06_models", "denoiser.safetensors", "d", "t", "f", content="12345")
    make(PRESET, "08_reporting", "metrics.json", "m", "d", "t", "f", content='{"psnr": 30.5, "details": {}}')
    make(CHANGED, "06_models", "denoiser.safetensors", "d2", "t", "f")
    metrics = '{"psnr": 30.5, "top1_accuracy": 0.5, "frechet_distance_convnet": 2, "frechet_distance_convnet_noise": 9}'
    make(CHANGED, "08_reporting", "metrics.json", "m2", "d2", "t", "f", content=metrics)
    (tmp_path / "06_models" / CHANGED / "parameters.json").write_text('{"diffusion.normalisation.gamma": 2.5}')
    (tmp_path / "06_models" / CHANGED / "checkpoints").mkdir()
    return tmp_path


def test_a_variant_is_all_that_lies_in_folders_of_its_name(data):
    preset, changed = find_variants(data)
    assert (preset.dataset, preset.name) == ("toy", "4x4x8-nearest")
    assert changed.name == "4x4x8-nearest/diffusion.normalisation.gamma=2.5"
    assert preset.summary == "denoiser, field, train_functaset, 1 reports"
    assert preset.bytes == 1 + 1 + 5 + len('{"psnr": 30.5, "details": {}}')
    assert changed.metrics["top1_accuracy"] == 0.5
    assert changed.frechet_distance == ("frechet_distance_convnet", 2)
    assert preset.frechet_distance is None


def test_what_is_begun_is_an_output_too(data):
    checkpoint = data / "06_models/toy/4x4x8-nearest/seed=1/checkpoints/field.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half")
    begun = data / "05_model_input/toy/4x4x8-nearest/seed=1/train_functaset.zarr"
    begun.mkdir(parents=True)
    (begun / "zarr.json").write_text("{}")
    *_, variant = find_variants(data)
    assert variant.name == "4x4x8-nearest/seed=1"
    assert {output.path for output in variant.outputs} == {checkpoint, begun}
    remove(removable([variant], find_variants(data))[0])
    assert len(find_variants(data)) == 2
    assert not begun.parent.exists()


def test_what_others_were_made_from_is_kept(data):
    found = find_variants(data)
    preset = matching(found, "toy/4x4x8-nearest")
    unused, used = removable(preset, found)
    assert {output.path.name for output in used} == {"field.safetensors", "train_functaset.zarr"}
    assert {output.path.name for output in unused} == {"denoiser.safetensors", "metrics.json"}
    remove(unused)
    assert (data / "06_models" / PRESET / "field.safetensors").exists()
    assert not record_of(data / "06_models" / PRESET / "denoiser.safetensors").exists()
    assert not (data / "08_reporting" / PRESET / "metrics.json").exists()
    assert (data / "08_reporting" / CHANGED / "metrics.json").exists()


def test_both_together_leave_nothing(data):
    found = find_variants(data)
    unused, used = removable(matching(found, "toy/*"), found)
    assert not used
    remove(unused)
    assert find_variants(data) == []
    assert [path for path in data.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", 2),
        ("toy/*gamma=2.5", 1),
        ("toy/4x4x8-nearest", 1),
        ("x*", 0),
        ("diffusion.normalisation.gamma=2.5", 1),
        ("diffusion.normalisation.gamma=2", 0),  # a value is no beginning of another one
        ("gamma=2.5", 0),
    ],
)
def test_patterns(data, pattern, count):
    assert len(matching(find_variants(data), pattern)) == count


def test_a_changed_parameter_is_found_in_a_name_that_was_cut_short(data):
    folder = data / "06_models/toy/4x4x8-nearest/a.long.name-0123"
    folder.mkdir()
    (folder / "denoiser.safetensors").write_text("x")
    (folder / "parameters.json").write_text('{"a.long.name": 1, "seed": 1}')
    assert [variant.name for variant in matching(find_variants(data), "seed=1")] == ["4x4x8-nearest/a.long.name-0123"]


def test_what_is_not_finished_keeps_what_it_may_be_made_from(data):
    checkpoint = data / "06_models" / CHANGED / "checkpoints/denoiser.pt"
    checkpoint.write_text("half")
    features = data / "06_models/toy/images/feature_network.safetensors"
    features.parent.mkdir()
    features.write_text("x")
    record_of(features).write_text('{"content": "n"}')
    found = find_variants(data)
    for pattern in (PRESET, "toy/images"):
        unused, used = removable(matching(found, pattern), found)
        assert unused == []
        assert len(used) == len(matching(found, pattern)[0].outputs)
    assert removable(matching(found, "toy/*"), found)[1] == []  # all together


def test_rubbish_goes_with_its_variant(data):
    folder = data / "06_models" / CHANGED
    (folder / "classifier.safetensors").write_text("saved, but not its record")
    (folder / ".denoiser_history.csv.fingerprint.json").write_text("{}")  # its output was deleted
    (folder / ".denoiser.safetensors.0123.tmp").write_text("half")
    found = find_variants(data)
    chosen = matching(found, CHANGED)
    assert "classifier" in chosen[0].summary
    remove(removable(chosen, found)[0])
    assert not folder.exists()
    assert (data / "06_models" / PRESET / "denoiser.safetensors").exists()
