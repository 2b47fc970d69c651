"""What is on disk, variant by variant, and what may be removed of it."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from spatial_functa_pipeline.cli import cli
from spatial_functa_pipeline.config.places import PARAMETERS_FILE, Change, Places
from spatial_functa_pipeline.datasets.variants import find_variants, matching, record_of, removable, remove
from spatial_functa_pipeline.files import replace_durably

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
    names = ("frechet_distance_convnet_noise_to_train", "frechet_distance_convnet_to_test", "fid_of_something")
    distances = {"frechet_distance_convnet_to_train": 2, **dict.fromkeys(names, 9)}
    metrics = json.dumps({"psnr": 30.5, "top1_accuracy": 0.5, **distances})
    make(CHANGED, "08_reporting", "metrics.json", "m2", "d2", "t", "f", content=metrics)
    write(tmp_path / "06_models" / CHANGED / PARAMETERS_FILE, '{"diffusion.normalisation.gamma": 2.5}')
    (tmp_path / "06_models" / CHANGED / "checkpoints").mkdir()
    return tmp_path


def write(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def names(outputs):
    return {output.path.name for output in outputs}


def test_a_variant_is_all_that_lies_in_folders_of_its_name(data):
    preset, changed = find_variants(data)
    assert (preset.dataset, preset.name) == ("toy", "4x4x8-nearest")
    assert changed.name == "4x4x8-nearest/diffusion.normalisation.gamma=2.5"
    assert preset.summary == "denoiser, field, train_functaset, 1 reports"
    assert preset.bytes == 1 + 1 + 5 + len('{"psnr": 30.5, "details": {}}')
    assert changed.metrics["top1_accuracy"] == 0.5
    assert changed.frechet_distance == ("frechet_distance_convnet_to_train", 2)
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
    "unfinished",
    [
        f"06_models/{CHANGED}/checkpoints/denoiser.pt",
        f"05_model_input/{PRESET}/seed=1/train_functaset.zarr/zarr.json",
        f"06_models/{PRESET}/seed=1/denoiser.safetensors",
    ],
)
def test_what_a_variant_under_way_may_need_is_kept(data, unfinished):
    write(data / unfinished)
    write(data / "06_models/toy/images/feature_network.safetensors")
    write(data / "06_models/toy/4x4x8-linear/field.safetensors")
    found = find_variants(data)
    unused, needed = removable(matching(found, PRESET), found)
    assert not unused
    assert names(needed) == {"field.safetensors", "train_functaset.zarr", "denoiser.safetensors", "metrics.json"}
    assert names(removable(matching(found, "toy/images"), found)[1]) == {"feature_network.safetensors"}
    assert names(removable(matching(found, "toy/4x4x8-linear"), found)[0]) == {"field.safetensors"}
    assert not removable(matching(found, "toy/*"), found)[1]


def test_it_may_need_what_was_made_with_some_of_its_changes(data):
    """A field of `seed=1`, of a denoiser with another γ too; not one of `seed=10`."""
    for seed in (1, 10):
        field = write(data / f"06_models/{PRESET}/seed={seed}/field.safetensors")
        write(record_of(field), json.dumps({"content": f"f{seed}"}))
    checkpoint = write(data / f"06_models/{PRESET}/diffusion.normalisation.gamma=2.5,seed=1/checkpoints/denoiser.pt")
    write(checkpoint.parents[1] / PARAMETERS_FILE, '{"diffusion.normalisation.gamma": 2.5, "seed": 1}')
    for listed in (True, False):  # the name will do
        found = find_variants(data)
        kept = [variant.place for variant in found if removable([variant], found)[1]]
        assert kept == [PRESET, CHANGED, f"{PRESET}/seed=1"]
        if listed:
            (checkpoint.parents[1] / PARAMETERS_FILE).unlink()


def test_a_training_that_has_written_nothing_yet_is_under_way(data):
    write(data / f"06_models/{PRESET}/seed=1/{PARAMETERS_FILE}", '{"seed": 1}')
    found = find_variants(data)
    assert not removable(matching(found, PRESET), found)[0]
    remove(removable(matching(found, "seed=1"), found)[0])
    assert not list(data.rglob("seed=1"))


def write_half(path):
    """As a process leaves it that is killed while it writes."""
    with replace_durably(path) as temporary:
        temporary.write_text("half")
    path.rename(temporary)


LEFTOVERS = {
    "a record without its output": lambda folder: write(record_of(folder / "d.zarr"), '{"sources": {"field": "f"}}'),
    "a checkpoint half written": lambda folder: write_half(folder / "checkpoints/denoiser.pt"),
    "a record half written": lambda folder: write_half(record_of(folder / "field.safetensors")),
    "a checkpoint that no training continues": lambda folder: write(folder / "checkpoints/denoiser.old-2.pt"),
}


@pytest.mark.parametrize("leave", LEFTOVERS.values(), ids=LEFTOVERS)
@pytest.mark.parametrize("place", [CHANGED, f"{PRESET}/seed=1"], ids=["beside outputs", "alone"])
def test_leftovers_are_listed_need_nothing_and_go_with_their_variant(data, leave, place):
    before = {output.path for variant in find_variants(data) for output in variant.outputs}
    leave(data / "06_models" / place)
    found = find_variants(data)
    (variant,) = matching(found, place)
    assert variant.summary.endswith(", 1 leftovers")
    (leftover,) = {output.path for one in found for output in one.outputs} - before
    assert leftover.read_text()
    assert "denoiser.safetensors" in names(removable(matching(found, PRESET), found)[0])
    remove(removable([variant], found)[0])
    assert not (data / "06_models" / place).exists()


@pytest.mark.parametrize("record", [None, "", '{"content": '])
def test_an_output_without_a_record_is_not_finished(data, record):
    """Its process was killed after it had removed the old record; a functaset's record is not replaced at once."""
    metrics = data / "08_reporting" / CHANGED / "metrics.json"
    metrics.write_text('{"psnr": ')
    record_of(metrics).unlink()
    if record is not None:
        write(record_of(metrics), record)
    _, changed = find_variants(data)
    assert changed.summary == "denoiser, 0 reports, 1 unfinished"
    assert changed.metrics == {}
    remove(removable([changed], find_variants(data))[0])
    assert not list(data.rglob("*gamma*"))


def test_what_is_no_output_is_not_listed(data):
    before = find_variants(data)
    write(data / "06_models" / PRESET / ".gitkeep")
    write(data / "06_models/toy/notes.txt")
    write(data / "05_model_input" / PRESET / "train_functaset.zarr/latents/c/0")
    assert [names(variant.outputs) for variant in find_variants(data)] == [names(one.outputs) for one in before]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", 2),
        ("toy/*gamma=2.5", 1),
        ("toy/4x4x8-nearest", 1),
        ("toy/4x4x8-*", 2),
        ("x*", 0),
        ("diffusion.normalisation.gamma=2.5", 1),
        ("diffusion.normalisation.gamma=2", 0),
        ("gamma=2.5", 0),
    ],
)
def test_patterns(data, pattern, count):
    assert len(matching(find_variants(data), pattern)) == count


def test_a_changed_parameter_is_matched_whole_also_in_a_name_that_is_cut_short(data):
    long = {f"classification.{'x' * 40}{index}": "y" * 20 for index in range(2)}
    for seed in (1, 10):
        values = {**long, "data.train_rows": [0, 5], "seed": seed}
        changes = tuple(Change(key, value, frozenset({key})) for key, value in values.items())
        places = Places("toy", "4x4x8-nearest", changes)
        folder = places.of("classification", "data", "seed", "meta_learning")
        assert "seed" not in folder
        listed = json.dumps(places.folders[folder])
        write(data / "06_models" / folder / PARAMETERS_FILE, listed)
        write(data / "06_models" / folder / "classifier.safetensors")
        write(data / f"06_models/{PRESET}/seed={seed}/field.safetensors")
    assert len(matching(find_variants(data), "seed=1")) == 2
    assert len(matching(find_variants(data), "seed=10")) == 2
    assert len(matching(find_variants(data), "data.train_rows=0x5")) == 2


@pytest.fixture
def command(data, tmp_path_factory):
    """`kedro variants …` in a project of these outputs; returns what it prints."""
    project = tmp_path_factory.mktemp("project")
    (project / "data").symlink_to(data)

    def run(*arguments, **options):
        arguments = ["variants", *arguments]
        return CliRunner().invoke(cli, arguments, obj=SimpleNamespace(project_path=project), **options).output

    return run


def test_what_will_be_removed_is_listed_before_it_is_asked_for(data, command):
    printed = command("--remove", "toy/4x4x8-nearest", input="n\n")
    before, asked, _ = printed.partition("Remove 2 outputs")
    assert asked
    assert f"to be removed: data/06_models/{PRESET}/denoiser.safetensors\n" in before
    assert f"to be removed: data/08_reporting/{PRESET}/metrics.json\n" in before
    assert f"may need it: data/06_models/{PRESET}/field.safetensors\n" in before
    assert (data / "06_models" / PRESET / "denoiser.safetensors").exists()
    assert "Removed 2 outputs" in command("--remove", "toy/4x4x8-nearest", "--yes")
    assert not (data / "06_models" / PRESET / "denoiser.safetensors").exists()


def test_the_help_has_examples_and_says_what_is_not_seen(command):
    printed = " ".join(command("--help").split())
    assert "as in seed=1" in printed
    assert "'cifar10/8x8x16-*'" in printed
    assert "Functasets in object stores are not seen" in printed
