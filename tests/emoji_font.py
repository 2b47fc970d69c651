"""A font of small colour bitmaps and Unicode's list for it, laid out as Noto's and Debian's are."""

import io

from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image

PRESENTATION = 0xFE0F


def square(colour, alpha=255):
    """A PNG of 136×128 pixels, as Noto's: a square of a colour between two transparent margins."""
    picture = Image.new("RGBA", (136, 128))
    picture.paste((*colour, alpha), (4, 0, 132, 128))
    png = io.BytesIO()
    picture.save(png, "PNG")
    return png.getvalue()


def write_emoji_font(path, drawings):
    """A font in which a sequence of code points, a tuple, is drawn as a PNG. Several of them are a ligature."""
    letters = sorted({code for codes in drawings for code in codes if code != PRESENTATION})
    glyphs = {codes: "_".join(f"u{code:X}" for code in codes if code != PRESENTATION) for codes in drawings}
    names = [".notdef", *dict.fromkeys([*(f"u{code:X}" for code in letters), *glyphs.values()])]
    builder = FontBuilder(2048, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({code: f"u{code:X}" for code in letters})
    rules = [f"sub {name.replace('_', ' ')} by {name};" for name in glyphs.values() if "_" in name]
    if rules:
        addOpenTypeFeaturesFromString(builder.font, f"feature ccmp {{ {' '.join(rules)} }} ccmp;")
    bitmaps = {
        glyphs[codes]: png for codes, png in sorted(drawings.items(), key=lambda one: names.index(glyphs[one[0]]))
    }
    builder.font["CBDT"], builder.font["CBLC"] = _bitmap_tables(bitmaps)
    builder.font.save(path)


def write_listing(path, groups):
    """`emoji-test.txt`: group → {code points: name}."""
    lines = ["# emoji-test.txt", "# Version: 15.0", ""]
    for group, members in groups.items():
        lines += [f"# group: {group}", "", "# subgroup: some"]
        for codes, name in members.items():
            text = " ".join(f"{code:04X}" for code in codes)
            lines.append(f"{text:<54} ; fully-qualified     # {''.join(map(chr, codes))} E1.0 {name}")
            if PRESENTATION in codes:
                lines.append(f"{text.removesuffix(' FE0F'):<54} ; unqualified         # x E1.0 {name}")
        lines.append(f"# {group} subtotal:\t\t{len(members)}")
    path.write_text("\n".join(lines), encoding="utf-8")


def _bitmap_tables(bitmaps):
    """The tables CBDT and CBLC of glyph → PNG, in the order of the glyphs."""
    strike, table = Strike(), eblc_index_sub_table_1(None, None)
    table.names, table.indexFormat, table.imageFormat = list(bitmaps), 1, 17
    strike.indexSubTables = [table]
    size = strike.bitmapSizeTable
    size.colorRef, size.ppemX, size.ppemY, size.bitDepth, size.flags = 0, 109, 109, 32, 1
    for direction in ("hori", "vert"):
        metrics = SbitLineMetrics()
        for name in ("caretSlopeNumerator", "caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB"):
            setattr(metrics, name, 0)
        metrics.maxBeforeBL = metrics.minAfterBL = metrics.pad1 = metrics.pad2 = 0
        metrics.ascender, metrics.descender, metrics.widthMax = 101, -27, 136
        setattr(size, direction, metrics)
    data, locations = newTable("CBDT"), newTable("CBLC")
    data.version = locations.version = 3.0
    data.strikeData = [{name: _bitmap(png) for name, png in bitmaps.items()}]
    locations.strikes = [strike]
    return data, locations


def _bitmap(png):
    glyph = cbdt_bitmap_format_17(None, None)
    glyph.metrics = SmallGlyphMetrics()
    glyph.metrics.height, glyph.metrics.width, glyph.metrics.Advance = 128, 136, 136
    glyph.metrics.BearingX, glyph.metrics.BearingY = 0, 101
    glyph.imageData = png
    return glyph
