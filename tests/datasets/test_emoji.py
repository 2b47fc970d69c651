"""Colour emoji: their classes and families, and splits that share no family; on a small font, and on Noto's where it is."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from emoji_font import square, write_emoji_font, write_listing
from kedro.io import DatasetError

from spatial_functa_pipeline.datasets.emoji import INSTALL, EmojiDataset
from spatial_functa_pipeline.images.emoji import Emoji, read_emoji
from spatial_functa_pipeline.images.images import ImagesError

MAN, WOMAN, PERSON, JOINER, TONE, COLOURED = 0x1F468, 0x1F469, 0x1F9D1, 0x200D, 0x1F3FB, 0xFE0F
FAMILY = "family: a family of twelve"


def drawn(number):
    """A colour of its own for each number."""
    return square((number * 5 % 256, number * 3 % 256, 255 - number))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve families of three people, one of them in another skin, and twenty animals; one line that nothing draws."""
    jobs = range(0x1F4A0, 0x1F4AC)
    people = {(who, JOINER, job): f"{who}" for job in jobs for who in (MAN, WOMAN, PERSON)}
    people |= {(MAN, TONE, JOINER, jobs[0]): "of another skin", (0x1F46A,): FAMILY}
    animals = {(0x1F400 + number, COLOURED): f"animal {number}" for number in range(20)}
    root = tmp_path_factory.mktemp("emoji")
    font, listing = root / EmojiDataset.FONT[0], root / EmojiDataset.LISTING[0]
    font.parent.mkdir(parents=True)
    listing.parent.mkdir(parents=True)
    write_emoji_font(font, {codes: drawn(number) for number, codes in enumerate([*people, *animals])})
    groups = {"People": people, "Component": {}, "Animals": {**animals, (0x1F999,): "not in the font"}}
    write_listing(listing, groups)
    return root


def load(root, **settings):
    return EmojiDataset(filepath=str(root), **{"resolution": [16, 16], **settings}).load()


def colours(images):
    return [tuple(colour) for colour in images.batch(range(len(images)))[:, 8, 8].tolist()]


def test_pictures_are_on_white_and_their_classes_the_groups_of_the_list(folder):
    images = load(folder)
    assert images.classes == ("People", "Animals")
    assert np.bincount(images.labels).tolist() == [37, 20]
    assert (images.resolution, images.channels, images.batch([0]).dtype) == ((16, 16), 3, torch.uint8)
    assert (images.batch(range(len(images)))[:, -1] == 255).all()  # what makes it a square
    people = {(number * 5 % 256, number * 3 % 256, 255 - number) for number in range(38)}
    assert [colour in people for colour in colours(images)] == (images.labels == 0).tolist()


def test_no_split_shares_a_family_with_another(folder):
    splits = [load(folder, share=list(ends)) for ends in pairwise([0.0, 0.5, 0.7, 1.0])]
    seen = [set(colours(images)) for images in splits]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 57
    drawings = EmojiDataset(filepath=str(folder), resolution=[16, 16])._drawings()
    for rows in drawings.families(0):
        members = {tuple(colour) for colour in drawings.pixels[rows, 8, 8].tolist()}
        assert sum(bool(members & colours) for colours in seen) == 1
    assert sorted(map(len, drawings.families(0))) == [1] * 21 + [3] * 12


def test_what_a_newer_list_adds_leaves_the_order_of_the_others(folder):
    drawings = EmojiDataset(filepath=str(folder), resolution=[16, 16])._drawings()
    families = [drawings.emoji[rows[0]].family for rows in drawings.families(0)]
    fewer = type(drawings)(drawings.pixels[5:], drawings.labels[5:], drawings.classes, drawings.emoji[5:], "")
    left = [fewer.emoji[rows[0]].family for rows in fewer.families(0)]
    assert [family for family in families if family in left] == left
    assert families != [drawings.emoji[rows[0]].family for rows in drawings.families(1)]


def test_other_skins_are_there_if_asked_for_and_of_the_same_family(folder):
    plain, whole = load(folder), load(folder, skin_tones=True)
    assert (len(plain), len(whole)) == (57, 58)
    drawings = read_emoji(folder / EmojiDataset.FONT[0], folder / EmojiDataset.LISTING[0], (16, 16), skin_tones=True)
    assert sorted(map(len, drawings.families(0))) == [1] * 21 + [3] * 11 + [4]


def test_identical_drawings_are_there_once(tmp_path):
    write_emoji_font(tmp_path / "NotoColorEmoji.ttf", {(65,): drawn(1), (66,): drawn(1), (67,): drawn(2)})
    write_listing(tmp_path / "emoji-test.txt", {"Letters": {(65,): "A", (66,): "B", (67,): "C"}})
    assert len(load(tmp_path)) == 2


@pytest.mark.parametrize(
    ("codes", "name", "family"),
    [
        ((0x1F3C4, 0x1F3FD, JOINER, 0x2640, COLOURED), "woman surfing: medium skin tone", "1f3c4"),
        ((PERSON, JOINER, 0x1F9B0), "person: red hair", "1f9d1"),
        ((0x1F471,), "person: blond hair", "1f9d1"),
        ((MAN, JOINER, 0x2764, COLOURED, JOINER, WOMAN), "couple with heart", "1f9d1-2764-1f9d1"),
        ((0x1F491,), "couple with heart", "1f9d1-2764-1f9d1"),
        ((0x1F46C,), "men holding hands", "1f9d1-1f91d-1f9d1"),
        ((MAN, JOINER, MAN, JOINER, 0x1F467), "family: man, man, girl", "family"),
        ((0x2640, COLOURED), "female sign", "2640"),
        ((0x1F43B, JOINER, 0x2744, COLOURED), "polar bear", "1f43b-2744"),
    ],
)
def test_a_family_is_what_is_nearly_the_same_drawing(codes, name, family):
    assert Emoji(codes, "Some", name).family == family


def test_they_are_the_same_in_another_process(folder):
    images = load(folder, share=[0.0, 0.5])
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.batch([3, 1]), images.batch([3, 1]))
    assert again.labels.tolist() == images.labels.tolist()


def test_the_fingerprint_knows_the_files_and_not_the_path(folder, tmp_path):
    known = EmojiDataset(filepath=str(folder), resolution=[16, 16]).fingerprint_config()
    for names in (EmojiDataset.FONT, EmojiDataset.LISTING):
        (tmp_path / names[1]).write_bytes((folder / names[0]).read_bytes())
    moved = EmojiDataset(filepath=str(tmp_path), resolution=[16, 16])
    assert moved.fingerprint_config() == known
    with (tmp_path / "emoji-test.txt").open("a") as file:
        file.write("\n# a newer one\n")
    assert moved.fingerprint_config() != known
    for settings in ({"skin_tones": True}, {"shuffle_seed": 1}, {"share": [0.0, 0.5]}):
        assert EmojiDataset(filepath=str(folder), resolution=[16, 16], **settings).fingerprint_config() != known


def test_without_the_packages_the_command_that_installs_them_is_named(tmp_path):
    dataset = EmojiDataset(filepath=str(tmp_path), resolution=[16, 16])
    assert not dataset.exists()
    assert dataset.fingerprint_config()["files"] == "none"
    with pytest.raises(DatasetError, match=f"NotoColorEmoji.ttf is not in {tmp_path}.*{INSTALL}"):
        dataset.load()
    write_emoji_font(tmp_path / "NotoColorEmoji.ttf", {(65,): drawn(1)})
    with pytest.raises(DatasetError, match=f"emoji-test.txt is not in {tmp_path}.*{INSTALL}"):
        dataset.load()


def test_files_that_are_not_such_are_told(tmp_path):
    write_listing(tmp_path / "emoji-test.txt", {"Letters": {(66,): "B"}})
    font = tmp_path / "NotoColorEmoji.ttf"
    font.write_bytes(b"no font at all")
    with pytest.raises(ImagesError, match="is no font"):
        load(tmp_path)
    write_emoji_font(font, {(65,): drawn(1)})
    with pytest.raises(ImagesError, match="draws none of the emoji"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"\[height, width\]"):
        EmojiDataset(filepath="x", resolution=[0, 16])


@pytest.mark.skipif(not EmojiDataset(filepath="/usr/share", resolution=[32, 32]).exists(), reason=f"needs {INSTALL}")
def test_notos_emoji_are_in_nine_classes_and_no_split_has_a_neighbour_of_another():
    splits = [load("/usr/share", share=list(ends)) for ends in pairwise([0.0, 0.7, 0.8, 1.0])]
    train, _, test = (images.batch(range(len(images))).float().flatten(1) / 255 for images in splits)
    assert len(splits[0].classes) == 9
    assert min(np.bincount(images.labels, minlength=9).min() for images in splits) >= 5
    assert sum(map(len, splits)) >= 1800
    distance = torch.cdist(test, train).min(dim=1).values / train.shape[1] ** 0.5
    assert distance.min() > 0.03  # RMS of a pixel, of 1: nothing is there twice, not even in another shade
