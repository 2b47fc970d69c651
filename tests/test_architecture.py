"""The rule of the house (docs/architecture.md): imports run down, and some libraries live in certain rooms alone."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = "spatial_functa_pipeline"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE
ROOMS = (  # from the ground up: each may import those before it, and itself
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
    "tracking",
    "datasets",
    "pipelines",
    "hooks",
)
KEDROS_OWN = {"settings", "pipeline_registry", "cli", "__main__"}  # the files that Kedro asks for: they may import all
WHERE = {  # library → the only places that may import it
    "kedro": {"datasets", "pipelines", "hooks", *KEDROS_OWN},
    "kedro_datasets": {"datasets"},
    "kedro_mlflow": {"hooks"},
    "mlflow": {"tracking", "hooks/mlflow.py"},
    "zarr": {"functasets"},
    "matplotlib": {"evaluation", "pipelines"},
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
