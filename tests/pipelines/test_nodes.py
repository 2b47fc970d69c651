"""Nodes are thin: a pipeline's folder holds its nodes and their order, and each node calls one function of a library."""

import ast
from pathlib import Path

import pytest

import spatial_functa_pipeline.pipelines as package
from spatial_functa_pipeline.pipeline_registry import PIPELINES, all_pipelines, register_pipelines

FOLDER = Path(package.__file__).parent
FILE_LINES = 120
BODY_LINES = 14


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function's body, without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def test_a_body_is_measured_without_its_docstring():
    (function,) = ast.parse(
        'def f(\n    a,\n):\n    """Two\n    lines."""\n    b = g(\n        a\n    )\n    return b'
    ).body
    assert body_lines(function) == 4


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_is_its_nodes_and_their_order(name):
    assert {path.name for path in (FOLDER / name).iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "nodes.py",
        "pipeline.py",
    }
    nodes = FOLDER / name / "nodes.py"
    assert len(nodes.read_text().splitlines()) <= FILE_LINES
    assert {
        function.name: body_lines(function) for function in functions(nodes) if body_lines(function) > BODY_LINES
    } == {}


def test_there_is_nothing_in_pipelines_but_pipelines():
    assert {path.name for path in FOLDER.iterdir()} - {"__pycache__", "__init__.py"} == set(PIPELINES)


def test_every_node_stands_in_a_nodes_file_and_says_what_it_does():
    for node in all_pipelines().nodes:
        assert node.func.__module__.endswith(".nodes"), node.name
        assert node.func.__doc__, node.name


def test_the_whole_flow_is_the_default():
    default = register_pipelines()["__default__"]
    assert set(all_pipelines().nodes) == set(default.nodes)
    tagged = default.only_nodes_with_tags("classification").nodes
    assert {node.name for node in tagged} == {"train_latent_classifier", "evaluate_classifier"}
