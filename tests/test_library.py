"""The rooms below Kedro's are a library: they import neither Kedro nor MLflow, and know nothing of the flow."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.pipeline_registry import register_pipelines

SOURCE = Path(__file__).parents[1] / "src/spatial_functa_pipeline"
ROOMS = ("fields", "images", "metrics", "functasets", "loading")
FILES = sorted(path for room in ROOMS for path in (SOURCE / room).rglob("*.py"))


@pytest.mark.parametrize("room", [*ROOMS, "models.weights"])
def test_a_room_imports_neither_kedro_nor_mlflow(room):
    program = f"import sys, spatial_functa_pipeline.{room}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "spatial_functa_pipeline" in loaded
    assert not {"kedro", "kedro_datasets", "kedro_mlflow", "mlflow"} & set(loaded)


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_names_as_public_is_there(room):
    module = importlib.import_module(f"spatial_functa_pipeline.{room}")
    assert len(module.__doc__) > 50
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if hasattr(value, "__module__"):
            assert not value.__module__.startswith("spatial_functa_pipeline") or value.__doc__, name


def test_no_room_knows_the_flow():
    """No command, no node's name and no path of a parameter, in whatever text."""
    nodes = "|".join(node.name for node in register_pipelines()["__default__"].nodes)
    blocks = "|".join(PipelineParameters.model_fields)
    flow = re.compile(
        rf"\b(kedro|catalog)\b|--(params|nodes|pipeline|env)\b|\b({nodes})\b|(?<![\w./])({blocks})\.[a-z]\w+"
    )
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {match[0]}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in flow.finditer(node.value)
    ]
    assert found == []
