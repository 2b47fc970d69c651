"""The rule of the house (docs/architecture.md): imports run down, and some libraries live in certain rooms alone."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.pipeline_registry import all_pipelines

PACKAGE = "spatial_functa_pipeline"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE
ROOMS = (  # from the ground up: each may import those before it, and itself
    "files",
    "digest",
    "fields",
    "config",
    "images",
    "compute",
    "metrics",
    "functasets",
    "loading",
    "models",
    "training",
    "evaluation",
    "studies",
    "reports",
    "tracking",
    "datasets",
    "pipelines",
    "hooks",
)
KEDROS_OWN = {  # what Kedro asks for, and its commands
    "settings",
    "config_loader",
    "pipeline_registry",
    "cli",
    "run_command",
    "study_command",
    "study_plan",
    "claims_command",
    "search_command",
    "study_report",
    "__main__",
}
WHERE = {  # library → the only places that may import it
    "kedro": {"datasets", "pipelines", "hooks", *KEDROS_OWN},
    "kedro_datasets": {"datasets"},
    "kedro_mlflow": {"hooks"},
    "mlflow": {"tracking", "hooks/mlflow.py"},
    "zarr": {"functasets"},
    "matplotlib": {"evaluation", "studies", "pipelines"},
    "filelock": {"hooks"},
    "optuna": {"studies"},
    "jinja2": {"reports"},
    "dask": {"functasets"},
    "distributed": {"functasets"},
}


def imports(tree: ast.AST, package: list[str]) -> list[str]:
    """All modules and names that a file imports, absolute, wherever in it the import stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def names_in(path: Path) -> list[str]:
    package = [PACKAGE, *path.relative_to(SOURCE).parent.parts]
    return imports(ast.parse(path.read_text()), package)


def against_the_rule(room: str, path: str, names: list[str]) -> list[str]:
    """The imports of a file in `room` that go up, or reach for a library out of its place."""
    wrong = []
    for name in names:
        top, *rest = name.split(".")
        if top == PACKAGE and rest and room not in KEDROS_OWN:
            other = rest[0]
            if other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{path}: {room} is below {other}, but imports {name}")
            if other in KEDROS_OWN and room != "hooks":
                wrong.append(f"{path}: {room} imports {name}, which is Kedro's")
        if top in WHERE and not {room, path} & WHERE[top]:
            wrong.append(f"{path}: {top} is for {', '.join(sorted(WHERE[top]))} alone")
    return wrong


def test_imports_run_down():
    wrong = [
        problem
        for path in FILES
        for problem in against_the_rule(room_of(path), str(path.relative_to(SOURCE)), names_in(path))
    ]
    assert wrong == []


def test_every_room_is_in_the_order():
    assert {room_of(path) for path in FILES} == {*ROOMS, *KEDROS_OWN}


@pytest.mark.parametrize(("lower", "upper"), list(pairwise(ROOMS)))
def test_an_import_against_the_order_is_found(lower, upper):
    for text in (
        f"from {PACKAGE}.{upper}.x import y",
        f"from {PACKAGE} import {upper}",
        f"import {PACKAGE}.{upper}.x",
        f"from ..{upper} import y",
        f"def f():\n    from ..{upper}.x import y",
        f"if TYPE_CHECKING:\n    from {PACKAGE}.{upper} import y",
    ):
        names = imports(ast.parse(text), [PACKAGE, lower])
        assert against_the_rule(lower, f"{lower}/a.py", names), text
        names = imports(ast.parse(text.replace(upper, lower)), [PACKAGE, upper])
        assert not against_the_rule(upper, f"{upper}/a.py", names), text


@pytest.mark.parametrize(("library", "room"), [("kedro.io", "functasets"), ("mlflow", "training"), ("zarr", "loading")])
def test_a_library_out_of_its_place_is_found(library, room):
    assert against_the_rule(room, f"{room}/a.py", [library])


# What a library does not know: the flow that it is used in. `config` is the place of parameters, and may name their paths.

ROOMS_THAT_KNOW_THE_FLOW = {"config", *ROOMS[ROOMS.index("datasets") :]}
BLOCKS = [
    name
    for name, field in PipelineParameters.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
]
OF_THE_FLOW = re.compile(
    r"\bkedro |--(params|nodes|pipeline|env)\b|"
    rf"\b({'|'.join(BLOCKS)})\.[a-z_]+|"  # the path of a parameter
    rf"\b({'|'.join(node.name for node in all_pipelines().nodes)})\b"
)


def texts(tree: ast.AST) -> list[str]:
    """The string constants of a file, f-strings' parts included, without docstrings and `__all__`."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or names == ["__all__"]:
            skipped |= {id(part) for part in ast.walk(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_library_room_knows_the_flow():
    rooms = {*ROOMS} - ROOMS_THAT_KNOW_THE_FLOW
    found = [
        f"{path.relative_to(SOURCE)}: {text}"
        for path in FILES
        if room_of(path) in rooms
        for text in texts(ast.parse(path.read_text()))
        if OF_THE_FLOW.search(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    ['f"build it: kedro run"', '"add --params a=b"', 'f"{x}: runtime.device is wrong"', '"the node meta_learn_field"'],
)
def test_words_of_the_flow_are_found(text):
    assert any(map(OF_THE_FLOW.search, texts(ast.parse(f"def f(x):\n    raise ValueError({text})"))))
    assert not texts(ast.parse(f'def f():\n    """{text[2:-1]}"""\n\n\n__all__ = ["meta_learn_field"]'))
