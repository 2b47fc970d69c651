"""What every report's page must be: well-formed, self-contained, and no wider than a phone."""

import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser

import pytest

_VOID = {"meta", "link", "img", "br", "hr", "input"}
_ADDRESSES = ("src", "href", "action", "data", "poster", "srcset")
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed")

_MEASURE = """<!DOCTYPE html><title>none</title><body><iframe width={width} height=2000 srcdoc="{page}"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const wide = [...page.querySelectorAll("body *")].filter(
    one => one.getBoundingClientRect().right > {width} && !one.closest(".scroll, .frame, pre"));
  const broken = [...page.images].filter(one => !one.naturalWidth);
  document.title = [page.documentElement.scrollWidth, wide.length, broken.length, page.images.length].join(" ");
}};
</script>"""


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.problems, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if len(attributes) != len(dict(attributes)):
            self.problems.append(f"{tag} has an attribute twice")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes another element, line {self.getpos()[0]}")

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"


def check_page(html):
    """A page's text, once it is found to be well-formed, self-contained and accessible."""
    page = _Page()
    page.feed(html)
    page.close()
    assert page.problems == []
    assert page.open == []
    assert html.startswith("<!DOCTYPE html>")
    found = [tag for tag, _ in page.tags]
    assert [found.count(tag) for tag in ("html", "head", "body", "title", "h1", "main", "style")] == [1] * 7
    assert not {"script", "iframe", "object", "embed", "base"} & {*found}
    named = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(named) == len({*named})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert ("html", {"lang": "en"}) in page.tags
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], "a script"
        assert tag != "img" or (attributes["alt"] and attributes["src"].startswith("data:image/png;base64,"))
        for address in (attributes[name] for name in _ADDRESSES if name in attributes):
            assert not re.match(r"\w+:", address) or address.startswith("data:"), f"{address} is elsewhere"
            assert not address.startswith("#") or address[1:] in named, f"{address} leads nowhere"
        for name in ("aria-labelledby",):
            assert name not in attributes or attributes[name] in named
    assert not re.search(r"@import|url\(", html)
    return " ".join(page.text.split())


def look_at(html, folder, width):
    """Open a page in Chromium, `width` pixels wide: how wide it is there, and how many things are wider, or broken."""
    file = folder / "measured.html"
    file.write_text(_MEASURE.format(width=width, page=escape(html)), encoding="utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'chromium'}",
    )
    options += ("--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1400,2100")
    done = subprocess.run(
        [_CHROMIUM, *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert ":CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    return dict(zip(("width", "wider", "broken", "images"), map(int, found.groups()), strict=True))
