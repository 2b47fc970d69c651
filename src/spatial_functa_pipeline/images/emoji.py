"""The drawings of a colour font of emoji, with the classes in which Unicode lists them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.images.boxes import FILTER
from spatial_functa_pipeline.images.decoders import opaque
from spatial_functa_pipeline.images.images import ImagesError

_SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_PRESENTATION = 0xFE0F
"""Asks for colour. The font's glyphs are named without it."""
_JOINER = 0x200D
_TURNS = frozenset({0x2640, 0x2642, 0x27A1, *range(0x1F9B0, 0x1F9B4)})
"""After a joiner: female, male, facing right, and kinds of hair."""
_PERSON, _CHILD, _ELDER, _HEART = 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x2764
_NEARLY_THE_SAME: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((0x1F468, 0x1F469, 0x1F471, 0x1F9D4), (_PERSON,)),  # man, woman, blond hair, beard
    **dict.fromkeys((0x1F466, 0x1F467), (_CHILD,)),  # boy, girl
    **dict.fromkeys((0x1F474, 0x1F475), (_ELDER,)),  # old man, old woman
    **dict.fromkeys((0x1F46B, 0x1F46C, 0x1F46D), (_PERSON, 0x1F91D, _PERSON)),  # two, holding hands
    0x1F48F: (_PERSON, _HEART, 0x1F48B, _PERSON),  # kiss
    0x1F491: (_PERSON, _HEART, _PERSON),  # couple with heart
    **dict.fromkeys((0x1F478, 0x1FAC5), (0x1F934,)),  # princess, person with crown → prince
    **dict.fromkeys((0x1F385, 0x1F936), (_PERSON, 0x1F384)),  # Santa Claus, Mrs. Claus → Mx. Claus
    0x1F483: (0x1F57A,),  # woman dancing → man dancing
    **dict.fromkeys((0x1FAC3, 0x1FAC4), (0x1F930,)),  # pregnant man, person → pregnant woman
}
"""Code points of another one that is drawn nearly so."""
_LINE = re.compile(r"(?P<codes>[0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E[\d.]+ (?P<name>.+)")


@dataclass(frozen=True)
class Emoji:
    """One line of Unicode's list: its code points, as in a text, its group and its English name."""

    codes: tuple[int, ...]
    group: str
    name: str

    @property
    def has_skin_tone(self) -> bool:
        """Whether it is another one in the colour of a skin."""
        return not _SKIN_TONES.isdisjoint(self.codes)

    @property
    def family(self) -> str:
        """What it shares with all drawings of the same thing: of other skin, sex, hair or direction."""
        if self.name.startswith("family"):
            return "family"
        codes = [code for code in self.codes if code not in _SKIN_TONES and code != _PRESENTATION]
        kept = [code for before, code in pairwise([0, *codes]) if not (before == _JOINER and code in _TURNS)]
        same = [one for code in kept if code != _JOINER for one in _NEARLY_THE_SAME.get(code, (code,))]
        return "-".join(f"{code:x}" for code in same)


@dataclass(frozen=True)
class EmojiDrawings:
    """What a font draws, once each, in the order of Unicode's list.

    Attributes:
        pixels: uint8 (N, *resolution, 3).
        labels: int64 (N,), positions in `classes`.
        classes: the groups of the list.
        emoji: (N,), which they are.
        digest: of font and list.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    emoji: tuple[Emoji, ...]
    digest: str

    def families(self, seed: int) -> list[np.ndarray]:
        """Rows, family by family, in the order of a digest of seed and family: a range of it is a fair sample.

        Where a family stands depends on itself alone: those that a newer font adds move it by a few places at most.
        """
        members: dict[str, list[int]] = {}
        for row, emoji in enumerate(self.emoji):
            members.setdefault(emoji.family, []).append(row)
        return [np.array(members[family]) for family in sorted(members, key=lambda name: _shuffling(seed, name))]

    def shuffled(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """The same rows, in the order of a digest of seed and code points."""
        return np.array(sorted(rows.tolist(), key=lambda row: _shuffling(seed, repr(self.emoji[row].codes))))


def read_emoji(font: Path, listing: Path, resolution: tuple[int, int], *, skin_tones: bool = False) -> EmojiDrawings:
    """All emoji of Unicode's `listing` (`emoji-test.txt`) that `font` has a bitmap for; identical drawings once.

    They are scaled to fit `resolution` (height, width), on white. What was read is kept until the files change.

    Args:
        font: a colour font with bitmaps (tables CBDT and CBLC), such as `NotoColorEmoji.ttf`.
        listing: UTF-8 text; the components, such as single skin tones, are left out.
        resolution: height and width, in pixels.
        skin_tones: whether to take those of another skin colour as well.

    Raises ImagesError if the font has no bitmaps, or none of what is listed.
    """
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in (font, listing))
    return _read_emoji(font, listing, resolution, skin_tones, stamps)


@lru_cache(maxsize=2)
def _read_emoji(
    font: Path, listing: Path, resolution: tuple[int, int], skin_tones: bool, _: tuple[tuple[int, int], ...]
) -> EmojiDrawings:
    drawing_of = _bitmaps(font)
    drawings: dict[bytes, Emoji] = {}
    for emoji in listed_emoji(listing.read_text(encoding="utf-8")):
        png = drawing_of(emoji.codes)
        if png and (skin_tones or not emoji.has_skin_tone):
            drawings.setdefault(png, emoji)
    if not drawings:
        raise ImagesError(f"{font} draws none of the emoji in {listing}: take both from the same distribution")
    drawn = tuple(drawings.values())
    classes = tuple(dict.fromkeys(one.group for one in drawn))
    return EmojiDrawings(
        pixels=np.stack([_decoded(png, resolution) for png in drawings]),
        labels=np.array([classes.index(one.group) for one in drawn], np.int64),
        classes=classes,
        emoji=drawn,
        digest=short_digest([font.read_bytes(), listing.read_bytes()]),
    )


def listed_emoji(text: str) -> Iterator[Emoji]:
    """The fully-qualified ones in the text of `emoji-test.txt` (Unicode Technical Standard 51), in its order."""
    group = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip()
        elif found := _LINE.match(line):
            yield Emoji(tuple(int(code, 16) for code in found["codes"].split()), group, found["name"])


def _bitmaps(path: Path) -> Callable[[tuple[int, ...]], bytes | None]:
    """Code points → PNG, or None where the font has none. Sequences are the font's ligatures."""
    from fontTools.ttLib import TTFont, TTLibError  # slow to import, and other images do without it

    try:
        font = TTFont(io.BytesIO(path.read_bytes()), lazy=True)
    except TTLibError as error:
        raise ImagesError(f"{path} is no font ({error}): remove it and get it again") from error
    with font:
        if "CBDT" not in font:
            raise ImagesError(f"{path} holds no bitmaps (table CBDT): a font of outlines is not read")
        bitmaps, glyphs = font["CBDT"].strikeData[0], font.getBestCmap()
        lookups = font["GSUB"].table.LookupList.Lookup if "GSUB" in font else []
        ligatures = {
            (first, *ligature.Component): ligature.LigGlyph
            for lookup in lookups
            for table in lookup.SubTable
            for first, found in getattr(table, "ligatures", {}).items()
            for ligature in found
        }

    def png(codes: tuple[int, ...]) -> bytes | None:
        names = tuple(glyphs.get(code) for code in codes if code != _PRESENTATION)
        glyph = names[0] if len(names) == 1 else ligatures.get(names)
        return bitmaps[glyph].imageData if glyph in bitmaps else None

    return png


def _decoded(png: bytes, resolution: tuple[int, int]) -> np.ndarray:
    """Uint8 (*resolution, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        height, width = resolution
        return np.asarray(ImageOps.pad(opaque(image).convert("RGB"), (width, height), FILTER, color="white"))


def _shuffling(seed: int, name: str) -> bytes:
    return blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
