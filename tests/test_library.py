"""The rooms below Kedro's are a library: what they load is neither Kedro nor MLflow, and their public names are there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/spatial_functa_pipeline"
ROOMS = ("fields", "images", "metrics", "functasets", "loading", "models", "training")
FILES = sorted(path for room in ROOMS for path in (SOURCE / room).rglob("*.py"))


@pytest.mark.parametrize("room", [*ROOMS, "evaluation.generation"])
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
