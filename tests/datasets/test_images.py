import base64
import gzip
import hashlib
import io
import os
import pickle
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from idx_files import write_idx
from kedro.io import AbstractDataset, DatasetError
from PIL import Image
from torchvision.datasets import CIFAR10

from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset
from spatial_functa_pipeline.datasets.images import (
    CIFAR10Dataset,
    ClutteredFashionMNISTDataset,
    FashionMNISTDataset,
    IDXDataset,
)
from spatial_functa_pipeline.images.images import ImagesError

SAMPLE = Path(__file__).parents[2] / "data" / "01_raw" / "fashion_mnist_sample"


@pytest.fixture(scope="module")
def sample():
    return FashionMNISTDataset(filepath=str(SAMPLE), part="test").load()


# --- Fashion-MNIST --------------------------------------------------------------------------------------------------


def test_the_sample_is_fashion_mnists_test_part(sample):
    assert len(sample) == 10_000
    assert (sample.resolution, sample.channels) == ((32, 32), 1)
    assert sample.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert sample.classes[sample.labels[0]] == "Ankle boot"
    assert np.bincount(sample.labels).tolist() == [1000] * 10


def test_padding_is_a_frame_of_two_zeros_around_the_original(sample):
    original = np.frombuffer(gzip.decompress((SAMPLE / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    padded = sample.batch(range(100)).numpy()[..., 0]
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], original.reshape(-1, 28, 28)[:100])
    padded[:, 2:-2, 2:-2] = 0
    assert not padded.any()


def test_the_three_splits_are_disjoint_and_together_everything(sample):
    splits = [
        FashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=rows).load()
        for rows in ([0, 8000], [8000, 9000], [-1000, None])
    ]
    assert [len(split) for split in splits] == [8000, 1000, 1000]
    assert np.concatenate([split.labels for split in splits]).tolist() == sample.labels.tolist()
    for split, first in zip(splits, (0, 8000, 9000), strict=True):
        assert torch.equal(split.batch([0, len(split) - 1]), sample.batch([first, first + len(split) - 1]))


@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_found_where_torchvision_puts_them_zipped_or_not(tmp_path, folder, suffix):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    dataset = FashionMNISTDataset(filepath=str(tmp_path), part="train")
    assert not dataset.exists()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    write_idx(tmp_path / folder / f"train-images-idx3-ubyte{suffix}", pixels)
    write_idx(tmp_path / folder / f"train-labels-idx1-ubyte{suffix}", np.array([1, 0, 9], np.uint8))
    assert dataset.exists()
    images = dataset.load()
    assert images.labels.tolist() == [1, 0, 9]
    np.testing.assert_array_equal(images.batch(range(3))[:, 2:-2, 2:-2, 0].numpy(), pixels)


def test_download_is_torchvisions_and_only_if_files_are_missing(tmp_path, monkeypatch):
    calls = []

    def download(root, download):
        calls.append((root, download))
        raw = root / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((2, 28, 28), np.uint8))
        write_idx(raw / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download)
    dataset = FashionMNISTDataset(filepath=str(tmp_path), part="test", download=True)
    assert len(dataset.load()) == len(dataset.load()) == 2
    assert calls == [(tmp_path, True)]


class TwoDigitsDataset(IDXDataset):
    NAME = "MNIST"
    CLASSES = ("0", "1")


def test_another_idx_data_set_says_its_name_and_classes_only(tmp_path):
    dataset = TwoDigitsDataset(filepath=str(tmp_path), part="test")
    with pytest.raises(DatasetError, match=r"MNIST needs t10k-images-idx3-ubyte.*MNIST/raw.*'download: true' there$"):
        dataset.load()
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((2, 28, 28), np.uint8))
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([1, 0], np.uint8))
    images = dataset.load()
    assert (images.classes, images.labels.tolist(), images.resolution) == (("0", "1"), [1, 0], (32, 32))
    assert dataset.fingerprint_config()["type"] == "TwoDigitsDataset"
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([2, 0], np.uint8))
    with pytest.raises(DatasetError, match=r"not MNIST's .* labels 0–1"):
        dataset.load()


def test_missing_files_are_named_with_the_ways_to_get_them(tmp_path):
    ways = r"train-images-idx3-ubyte(?s:.)*\. Correct data_path (?s:.)*download: true(?s:.)*dataset-fashion-mnist"
    with pytest.raises(DatasetError, match=ways):
        FashionMNISTDataset(filepath=str(tmp_path), part="train").load()


@pytest.mark.parametrize("rows", [[0, 10_001], [5, 5], [-10_001, 3], [9, 8]])
def test_rows_outside_the_data_are_an_error(rows):
    with pytest.raises(DatasetError, match="10000 images"):
        FashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=rows).load()


def test_wrong_settings_fail_when_the_catalog_is_read():
    with pytest.raises(ValueError, match="train or test"):
        FashionMNISTDataset(filepath="x", part="validation")
    with pytest.raises(ValueError, match=r"\[start, stop\]"):
        FashionMNISTDataset(filepath="x", part="train", rows=[3])
    with pytest.raises(TypeError):
        FashionMNISTDataset(filepath="x", part="train", rows=[0, 0.5])
    with pytest.raises(ValueError, match="height, width"):
        ImageFolderDataset(filepath="x", resolution=[64])
    with pytest.raises(ValueError, match="1 for grey or 3 for colour, got 4"):
        ImageFolderDataset(filepath="x", resolution=[64, 64], channels=4)
    for share in ([0.5], [0.5, 0.5], [0.8, 1.1], [-0.1, 1]):
        with pytest.raises(ValueError, match="share is written as"):
            ImageFolderDataset(filepath="x", resolution=[64, 64], share=share)
    with pytest.raises(ValueError, match="not as both"):
        ImageFolderDataset(filepath="x", resolution=[64, 64], share=[0, 0.5], rows=[0, 5])


def test_images_and_labels_that_do_not_belong_together_are_an_error(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((3, 28, 28), np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(DatasetError, match=r"\(3, 28, 28\) and \(2,\)"):
        FashionMNISTDataset(filepath=str(tmp_path), part="test").load()


# --- Fashion-MNIST among clutter ------------------------------------------------------------------------------------

CLUTTER = {"resolution": [48, 40], "scale": [0.6, 0.9], "pieces": 6, "piece_size": 8}


def cluttered(rows=None, **settings):
    return ClutteredFashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=rows, **{**CLUTTER, **settings})


def test_cluttered_garments_have_the_labels_of_the_plain_ones(sample):
    images = cluttered([500, 700]).load()
    assert (images.resolution, images.channels, images.classes) == ((48, 40), 1, sample.classes)
    assert images.labels.tolist() == sample.labels[500:700].tolist()
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.batch([199, 3]), images.batch([199, 3]))
    assert images.batch(range(200)).flatten(1).amax(1).min() > 0
    assert decode_png(cluttered([0, 20]).preview()).shape == (2 * 48, 10 * 40)


def test_clutter_comes_from_the_same_rows_and_every_row_draws_its_own(sample):
    lone = cluttered([500, 502], scale=[1.0, 1.0]).load().batch([0, 1])
    more = cluttered([500, 600], scale=[1.0, 1.0]).load().batch([0, 1])
    alone = cluttered([501, 601], scale=[1.0, 1.0], pieces=0).load().batch([0])
    plain = cluttered([500, 600], scale=[1.0, 1.0], pieces=0).load().batch([0, 1])
    assert (lone >= plain).all()  # the same garment at the same place,
    assert (lone != plain).any()
    assert (more != lone).any()  # among pieces of others
    assert torch.equal(alone[0], plain[1])  # a garment's place does not hang on where the range begins
    values = set(sample.batch([500, 501]).unique().tolist())
    assert set(lone.unique().tolist()) <= values
    with pytest.raises(DatasetError, match="no other to cut pieces from"):
        cluttered([500, 501]).load()
    assert len(cluttered([500, 501], pieces=0).load()) == 1


def test_the_fingerprint_follows_the_protocol():
    known = cluttered([0, 100]).fingerprint_config()
    others = (
        *({"resolution": [48, 48]}, {"scale": [0.5, 0.9]}, {"pieces": 5}, {"piece_size": 7}, {"clutter_seed": 1}),
        {"rows": [0, 99]},
    )
    for changed in others:
        assert cluttered(**{"rows": [0, 100], **changed}).fingerprint_config() != known
    assert FashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=[0, 100]).fingerprint_config() != known


def test_a_protocol_that_cannot_be_followed_fails_when_the_catalog_is_read():
    with pytest.raises(ValueError, match="does not fit the canvas"):
        cluttered(scale=[0.5, 2.0])
    with pytest.raises(ValueError, match=r"\[height, width\] and scale as \[smallest, largest\]"):
        cluttered(scale=[0.5])
    with pytest.raises(TypeError):
        cluttered(pieces=1.5)


# --- CIFAR-10 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Files in CIFAR-10's format with four images each; returns the folder and the test file's raw rows."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def part(first_label):
        labels = [(first_label + i) % 10 for i in range(4)]
        return {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": labels}

    test = part(6)
    monkeypatch.setattr(CIFAR10, "train_list", [dump(f"data_batch_{i}", part(i)) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [dump("test_batch", test)])
    name, md5 = dump("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path, test["data"]


def test_cifar10_is_channel_last(cifar):
    root, raw = cifar
    dataset = CIFAR10Dataset(filepath=str(root), part="test")
    images = dataset.load()
    assert dataset.exists()
    assert images.labels.tolist() == [6, 7, 8, 9]
    assert images.classes[6] == "class 6"
    assert (images.resolution, images.channels) == ((32, 32), 3)
    # A raw row holds the red plane, then the green, then the blue, each row by row.
    assert images.batch([2])[0, 5, 9].tolist() == [raw[2, plane * 1024 + 5 * 32 + 9] for plane in range(3)]


def test_cifar10_rows_cut_the_train_part(cifar):
    root, _ = cifar
    whole = CIFAR10Dataset(filepath=str(root), part="train").load()
    end = CIFAR10Dataset(filepath=str(root), part="train", rows=[-3, None]).load()
    assert len(whole) == 20
    assert torch.equal(end.batch(range(3)), whole.batch([17, 18, 19]))
    assert end.labels.tolist() == whole.labels[-3:].tolist()


def test_damaged_or_missing_cifar10_says_what_to_do(cifar, tmp_path):
    root, _ = cifar
    (root / CIFAR10.base_folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"data_batch_1(?s:.)*\. Correct data_path (?s:.)*download: true"):
        CIFAR10Dataset(filepath=str(root), part="train").load()
    assert not CIFAR10Dataset(filepath=str(tmp_path / "nowhere"), part="train").exists()


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two classes of odd-sized PNGs; the files of a class have one colour each."""
    for name, shade in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        for i in range(4):
            size = (17 + 5 * i, 40 - 3 * i)
            Image.new("RGB", size, (shade + i, i, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_a_folder_of_classes(folder):
    images = ImageFolderDataset(filepath=str(folder), resolution=[16, 16]).load()
    assert images.classes == ("cat", "dog")
    assert (len(images), images.resolution, images.channels) == (8, (16, 16), 3)
    batch = images.batch(range(8))
    assert batch.shape == (8, 16, 16, 3)
    red = batch[..., 0].flatten(1)
    assert torch.equal(red.amin(1), red.amax(1))
    assert (red[:, 0].numpy() >= 200).tolist() == (images.labels == 1).tolist()


def test_ranges_of_the_shuffled_order_partition_the_folder(folder):
    def colours(**settings):
        images = ImageFolderDataset(filepath=str(folder), resolution=[8, 8], **settings).load()
        return images.batch(range(len(images)))[:, 0, 0].tolist()

    whole = colours()
    assert colours(rows=[0, -3]) + colours(rows=[-3, None]) == whole
    assert len({tuple(colour) for colour in whole}) == 8
    assert sorted(colours(shuffle_seed=1)) == sorted(whole)
    assert colours(shuffle_seed=1) != whole


def test_the_shorter_side_is_fitted_and_the_centre_kept(tmp_path):
    # Thirds of red, green and blue, 16 pixels high: the centre square of 16 pixels is all green.
    stripes = np.zeros((16, 48, 3), np.uint8)
    stripes[:, :16, 0] = stripes[:, 16:32, 1] = stripes[:, 32:, 2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    square = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16]).load().batch([0])[0]
    np.testing.assert_array_equal(square.numpy(), stripes[:, 16:32])
    small = ImageFolderDataset(filepath=str(tmp_path), resolution=[8, 8]).load().batch([0])[0]
    assert small.shape == (8, 8, 3)
    # The filter reaches over the box's edge, so the three outer columns hold a trace of the neighbours; both sides alike.
    assert (small[:, 3:-3] == torch.tensor([0, 255, 0])).all()
    assert torch.equal(small[..., 0], small[..., 2].flip(1))
    wide = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 48]).load().batch([0])[0]
    np.testing.assert_array_equal(wide.numpy(), stripes)


def test_downsizing_is_antialiased(tmp_path):
    # Alternate black and white columns average to grey; picking every fourth column would give black or white.
    columns = np.zeros((64, 64), np.uint8)
    columns[:, ::2] = 255
    Image.fromarray(columns).save(tmp_path / "columns.png")
    image = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16]).load().batch([0]).float()
    assert (image[0, :, 2:-2] - 127.5).abs().max() < 16


def test_a_flat_folder_is_one_class_and_grey_becomes_rgb(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    images = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16]).load()
    assert images.classes == ("all",)
    assert images.labels.tolist() == [0]
    np.testing.assert_array_equal(images.batch([0])[0].numpy(), np.repeat(ramp[..., None], 3, axis=-1))


def shares(root, *ends):
    """Names of the files in each of the shares."""
    return [
        {os.fsdecode(path).rpartition("/")[2] for path in ImageFolderDataset(
            filepath=str(root), resolution=[8, 8], share=[start, stop]
        ).load().read.paths}
        for start, stop in pairwise(ends)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [10, 11, 14, 15, 19, 47])
def test_shares_cut_any_folder_of_ten_pictures(tmp_path, count):
    for number in range(count):
        Image.new("L", (8, 8)).save(tmp_path / f"{number}.png")
    before = shares(tmp_path, 0.0, 0.8, 0.9, 1.0)
    assert all(before)
    assert sum(map(len, before)) == len(set().union(*before)) == count
    assert len(before[0]) == round(0.8 * count)
    if count == 10:
        return
    # Whichever picture goes, no other leaves the training for the test set, or the other way, and two change sets at most.
    for gone in sorted(set().union(*before)):
        (tmp_path / gone).rename(tmp_path / "gone")
        train, validation, test = shares(tmp_path, 0.0, 0.8, 0.9, 1.0)
        assert not train & before[2]
        assert not test & before[0]
        moved = [now - then for now, then in zip((train, validation, test), before, strict=True)]
        assert sum(map(len, moved)) <= 2
        (tmp_path / "gone").rename(tmp_path / gone)


def test_a_share_without_an_image_names_the_folder_and_the_number(folder):
    with pytest.raises(DatasetError, match=rf"share \[0.5, 0.55\] of the 8 images in {folder} is none of them"):
        ImageFolderDataset(filepath=str(folder), resolution=[8, 8], share=[0.5, 0.55]).load()


def test_shares_are_of_any_data_set():
    tenths = [
        FashionMNISTDataset(filepath=str(SAMPLE), part="test", share=[tenth / 10, (tenth + 1) / 10]).load()
        for tenth in range(10)
    ]
    assert [len(images) for images in tenths] == [1000] * 10


def test_a_folder_can_be_read_as_grey(folder):
    dataset = ImageFolderDataset(filepath=str(folder), resolution=[8, 8], channels=1)
    images = dataset.load()
    assert (images.channels, images.batch([0, 1]).shape) == (1, (2, 8, 8, 1))
    assert decode_png(dataset.preview()).shape == (8, 64)


@pytest.mark.parametrize(
    ("dataset", "module"), [(CIFAR10Dataset, "cifar"), (FashionMNISTDataset, "mnist")], ids=lambda one: str(one)
)
def test_a_download_that_fails_is_no_missing_setting(tmp_path, monkeypatch, dataset, module):
    def no_network(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", no_network)
    with pytest.raises(DatasetError, match=r"its download failed \((?s:.)*\)\. Correct data_path ") as error:
        dataset(filepath=str(tmp_path), part="train", download=True).load()
    assert "download: true" not in str(error.value)


def test_a_broken_image_is_named(folder):
    broken = folder / "cat" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    images = ImageFolderDataset(filepath=str(folder), resolution=[8, 8]).load()
    with pytest.raises(ImagesError, match=r"cannot decode .*cat/2\.png"):
        images.batch(range(8))


def test_folders_that_cannot_be_read_say_why(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere is not a folder: correct data_path (?s:.)*image-net\.org"):
        ImageFolderDataset(filepath=str(tmp_path / "nowhere"), resolution=[8, 8]).load()
    (folder / "bird").mkdir()
    with pytest.raises(DatasetError, match=r"there are no pictures in .*bird$"):
        ImageFolderDataset(filepath=str(folder / "bird"), resolution=[8, 8]).load()
    (folder / "bird" / "a.heic").touch()
    with pytest.raises(DatasetError, match=r"there are no pictures in .*bird; there is 1 \.heic file"):
        ImageFolderDataset(filepath=str(folder / "bird"), resolution=[8, 8]).load()


def test_folder_images_pickle_lazily(folder):
    images = ImageFolderDataset(filepath=str(folder), resolution=[64, 64]).load()
    frozen = pickle.dumps(images)
    assert len(frozen) < 8 * 64 * 64 * 3
    assert torch.equal(pickle.loads(frozen).batch([5, 1]), images.batch([5, 1]))


# --- what they share ------------------------------------------------------------------------------------------------


def test_the_fingerprint_tells_images_apart_but_not_places(tmp_path):
    def fingerprint(place="here", **settings):
        return FashionMNISTDataset(filepath=f"{place}/images", part="train", **settings).fingerprint_config()

    assert fingerprint() == fingerprint("there") == fingerprint(download=True)
    assert fingerprint(rows=[0, 5]) == fingerprint(rows=(0, 5))
    assert fingerprint(rows=[0, 5]) != fingerprint(rows=[0, 6])

    def folder_fingerprint(filepath="here/train", **settings):
        return ImageFolderDataset(filepath=filepath, **{"resolution": [8, 8], **settings}).fingerprint_config()

    variants = [{}, {"filepath": "here/val"}, {"resolution": [8, 16]}, {"rows": [0, 1]}, {"shuffle_seed": 1}]
    variants += [{"channels": 1}, {"share": [0, 0.5]}, {"share": [0.5, 1]}, {"white": 4095}]
    assert len({str(folder_fingerprint(**variant)) for variant in variants}) == len(variants)
    assert folder_fingerprint() != folder_fingerprint("there/train")  # a folder is known by its path, and its files

    for name in ("a", "b"):
        before = folder_fingerprint(str(tmp_path))
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
        assert folder_fingerprint(str(tmp_path)) != before
    before = folder_fingerprint(str(tmp_path))
    assert before["files"].startswith("2 pictures, ")
    (tmp_path / "notes.txt").touch()
    assert folder_fingerprint(str(tmp_path)) == before
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert folder_fingerprint(str(tmp_path)) != before


def test_images_are_read_only():
    with pytest.raises(DatasetError, match="read-only"):
        FashionMNISTDataset(filepath=str(SAMPLE), part="test").save(object())


def test_a_catalog_entry_becomes_a_dataset():
    entry = {
        "type": "spatial_functa_pipeline.datasets.images.FashionMNISTDataset",
        "filepath": str(SAMPLE),
        "part": "test",
        "rows": [0, 20],
        "metadata": {"kedro-viz": {"layer": "raw"}},
    }
    dataset = AbstractDataset.from_config("train_images", entry)
    assert dataset.metadata == entry["metadata"]
    assert len(dataset.load()) == 20
    assert "rows=[0, 20]" in str(dataset)


def decode_png(preview):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(preview))))


def test_previews_show_the_first_images_in_rows_of_ten(sample, folder):
    grid = decode_png(FashionMNISTDataset(filepath=str(SAMPLE), part="test", rows=[0, 25]).preview())
    assert grid.shape == (2 * 32, 10 * 32)
    np.testing.assert_array_equal(grid[32:64, 64:96], sample.batch([12])[0, ..., 0].numpy())
    assert decode_png(ImageFolderDataset(filepath=str(folder), resolution=[8, 8]).preview()).shape == (8, 64, 3)
