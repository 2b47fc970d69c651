"""Every `kedro run` that README and docs/ print finds parameters that pass, and a catalog."""

import shlex
from pathlib import Path

import click
import pytest
from kedro.framework.cli.utils import _split_params
from test_environments import load, loader

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """All that stand on a line of their own, without their comments."""
    lines = (line.strip() for page in PAGES for line in page.read_text().replace("\\\n", " ").splitlines())
    return sorted({line.split("  #")[0] for line in lines if line.startswith("kedro run")})


def options(command):
    """Environment and runtime parameters, as Kedro reads them from a command line."""
    words = shlex.split(command, comments=True)
    given = {name: words[words.index(name) + 1] for name in ("--env", "--params") if name in words}
    return given.get("--env"), _split_params(click.Context(click.Command("run")), None, given.get("--params", ""))


def test_there_are_commands():
    assert len(commands()) >= 20
    assert options("kedro run --env a --params b.c=1,b.d=null,e=x # f") == ("a", {"b": {"c": 1, "d": None}, "e": "x"})


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_is_configured(command):
    env, given = options(command)
    parameters = load(env, given)
    assert parameters.dataset == (env or "fashion_mnist_sample")
    for key in ("latent_shape", "interpolation"):
        assert given.get(key) in (None, str(getattr(parameters, key)))
    assert "field" in loader(env, given)["catalog"]


def test_a_plain_run_is_the_embedded_sample():
    assert load(None) == load("sample")
