"""What README and docs tell a reader to type exists, what they link to or name is there, and their lines are short."""

import ast
import re
import shlex
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from kedro.config import MissingConfigException
from kedro.framework.cli.project import project_group

from spatial_functa_pipeline.cli import cli
from spatial_functa_pipeline.config.presets import block_in, find_field
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/spatial_functa_pipeline"
DOCS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
BY_NAME = pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())

ELSEWHERE = {"apt-get", "cd", "cp", "export", "git", "pip", "pre-commit", "source"}
"""Commands that are not this project's."""
PLACEHOLDERS = set("…<>")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)$")


def parts(text):
    """Lines of a document, each with the language of the fenced block that it is in ("" without one), or None outside."""
    inside = None
    for line in text.splitlines():
        if fence := FENCE.match(line):
            inside = fence[1] if inside is None else None
        else:
            yield inside, line


def prose(path):
    return [line for inside, line in parts(path.read_text()) if inside is None]


def commands(path):
    """Of the fenced `bash` blocks, and of the code in sentences that is a whole command of this project."""
    text = path.read_text()
    shell = "\n".join(line for inside, line in parts(text) if inside == "bash").replace("\\\n", " ").splitlines()
    inline = re.findall(r"`((?:kedro|make|python) [^`]+)`", "\n".join(prose(path)))
    words = [
        shlex.split(line, comments=True)
        for line in [*shell, *inline]
        if not (PLACEHOLDERS & set(line) or line.endswith("="))
    ]
    return [command for command in words if command]


# The walks of docs/extending.md name what a reader has just added; tests/test_extending.py tries them.
COMMANDS = sorted({tuple(command) for path in DOCS if path.stem != "extending" for command in commands(path)})


@cache
def pipelines():
    return register_pipelines()


@cache
def kedros_commands():
    """The groups of commands that `kedro` has in this project."""
    plugins = [entry.load() for kind in ("project", "global") for entry in entry_points(group=f"kedro.{kind}_commands")]
    return [cli, project_group, *plugins]  # the project's own come first


def check_kedro(words):
    name, *rest = words
    context = click.Context(click.Command("kedro"))
    command = next((found for group in kedros_commands() if (found := group.get_command(context, name))), None)
    assert command, f"kedro has no command {name}"
    while isinstance(command, click.Group):
        name, *rest = rest
        command = command.get_command(context, name)
        assert command, f"there is no subcommand {name}"
    given = command.make_context(name, rest).params
    check_configuration(given.get("env"), given.get("params") or {})
    if name == "run":
        check_choice(given)
    if name == "study" and given["name"]:
        env = given["env"] or CONFIG_LOADER_ARGS["default_run_env"]
        assert (ROOT / "conf" / env / "studies" / f"{given['name']}.yml").exists()


def check_configuration(env, params):
    loader = CONFIG_LOADER_CLASS(str(ROOT / "conf"), env=env, runtime_params=params, **CONFIG_LOADER_ARGS)
    PipelineParameters.model_validate(loader["parameters"])


def check_choice(given):
    """The pipelines, tags and nodes that a `kedro run` names are there."""
    named = [name for name in [given.get("pipeline"), *(given.get("pipelines") or ())] if name]
    assert not set(named) - set(pipelines())
    everything = sum(
        (pipelines()[name] for name in named or ["__default__"]), start=type(pipelines()["__default__"])([])
    )
    tags = {tag for node in everything.nodes for tag in node.tags}
    nodes = {node.name for node in everything.nodes}
    assert not set(given.get("tags") or ()) - tags
    for option in ("node_names", "from_nodes", "to_nodes"):
        assert not set(given.get(option) or ()) - nodes


def check_make(words):
    targets = re.findall(r"^([\w.-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M)
    assert not [word for word in words if "=" not in word and word not in targets]


def check_python(words):
    script, *rest = words
    if script == "-m":
        return
    source = (ROOT / script).read_text()
    for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
        assert f'"{option}"' in source, option


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_can_be_typed(command):
    program, *words = command
    program = program.removeprefix(".venv/bin/")
    checks = {"kedro": check_kedro, "make": check_make, "python": check_python}
    if program not in ELSEWHERE:
        assert program in checks, f"what is {program}?"
        checks[program](words)


@pytest.mark.parametrize(
    "command",
    [
        "kedro run --envv test",
        "kedro run --env nowhere",
        "kedro run --pipeline=no_such",
        "kedro run --tags=no_such",
        "kedro run --nodes=no_such",
        "kedro run --params latent_shape=5x5x8",
        "kedro run --params no_such=1",
        "kedro no-such",
        "kedro study no-such",
        "kedro viz no-such",
        "make no-such",
        "python benchmarks/no_such.py",
        "python benchmarks/field.py --no-such",
        "no-such",
    ],
)
def test_a_command_that_cannot_be_typed_is_found(command):
    with pytest.raises((AssertionError, click.ClickException, MissingConfigException, OSError, ValueError)):
        test_a_command_can_be_typed(tuple(shlex.split(command)))


def anchors(path):
    """Of the headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip().lower() for line in prose(path) if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@BY_NAME
def test_links_lead_somewhere(path):
    for link in LINK.findall("\n".join(prose(path))):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


PLACES = (ROOT / "docs/architecture.md").read_text().split("## Where to find a thing\n")[1].split("\n## ")[0]


def defined_in(path):
    """The classes, functions and methods of a file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)} | {
        f"{node.name}.{part.name}"
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.FunctionDef)
    }


def not_found(row):
    """Of the symbols in a row of a table that names files: those that none of these files defines."""
    code = re.findall(r"`([^`]+)`", row)
    files = [SOURCE / word for word in code if re.fullmatch(r"[a-z_/]+\.py", word)]
    symbols = [word.partition("(")[0] for word in code if re.fullmatch(r"([A-Z]\w*\.)?\w+(\(.*\))?", word)]
    return set(symbols) - set().union(*map(defined_in, files)) if files else set()


@pytest.mark.parametrize("row", [line for line in PLACES.splitlines() if ".py`" in line])
def test_what_is_said_to_be_in_a_file_is_there(row):
    assert not_found(row) == set()


@pytest.mark.parametrize("symbol", ["no_such", "NoSuch", "SpatialField.no_such", "no_such(seed)"])
def test_what_is_not_in_its_file_is_found(symbol):
    assert not_found(f"| a thing | `fields/field.py`: `SpatialField._fit`, `encode`, `{symbol}` |")


# What stands in code between backquotes


def code(path):
    return re.findall(r"`([^`]+)`", "\n".join(prose(path)))


def keys(words):
    """The parameters among them, without their values: `diffusion.unet.dropout=0.4` is one, a Kedro pipeline is none."""
    block = "|".join(name for name, field in PipelineParameters.model_fields.items() if block_in(field.annotation))
    found = (re.match(rf"(?:{block})(?:\.\w+)+", word) for word in words)
    return sorted({match[0] for match in found if match})


@BY_NAME
def test_parameters_that_are_named_are_there(path):
    if path.stem != "extending":
        for key in keys(code(path)):
            find_field(key)


def test_a_parameter_that_is_not_there_is_found():
    assert keys(["diffusion.unet.chanels=64", "diffusion", "seed=1", "kedro run", "training.steps"]) == [
        "diffusion.unet.chanels"
    ]
    with pytest.raises(ValueError, match="unknown key"):
        find_field("diffusion.unet.chanels")


# docs/paper.md

PAPER = ROOT / "docs/paper.md"


def test_every_table_and_figure_of_the_paper_has_a_row():
    rows = [line.split("|")[1] for line in prose(PAPER) if line.startswith("| ")]
    for kind, count in (("Tab", 8), ("Fig", 13)):
        named = {int(number) for row in rows if kind in row for number in re.findall(r"\d+", row.partition(",")[0])}
        assert named >= set(range(1, count + 1)), kind


def files_named(words):
    return [word for word in words if re.fullmatch(r"[\w/<> ]+\.(py|yml|png|csv)", word)]


def is_there(name):
    """In the repository or the package; an output in the catalog."""
    if name.endswith((".png", ".csv")):
        return any(f"/{name}" in file.read_text() for file in ROOT.glob("conf/base/catalog_*.yml"))
    names = [name.replace("<data set>", env) for env in ("cifar10", "imagenet256", "celebahq64")]
    return all((folder / name).exists() for name in names for folder in [ROOT if name[:5] == "conf/" else SOURCE])


def test_files_that_the_papers_page_names_are_there():
    named = files_named(code(PAPER))
    assert len(named) > 20
    assert [name for name in named if not is_there(name)] == []


@pytest.mark.parametrize("name", ["fields/fields.py", "no_such.png", "conf/<data set>/parameters_of_ours.yml"])
def test_a_file_that_is_not_there_is_found(name):
    assert files_named([name]) == [name]
    assert not is_there(name)


@BY_NAME
def test_lines_are_short(path):
    long = [line for line in prose(path) if len(line) > 120 and not line.lstrip().startswith("|")]
    assert long == []


def test_files_that_code_and_configuration_name_are_there():
    folders = ("src", "conf", "benchmarks", "tests", "notebooks")
    files = [
        path for folder in folders for ending in ("py", "yml", "ipynb") for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    named = {(path, name) for path in files for name in re.findall(r"\bdocs/[\w/-]+\.\w+", path.read_text())}
    assert {(path, name) for path, name in named if not (ROOT / name).exists()} == set()
