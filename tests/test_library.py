"""The rooms below Kedro's are a library: what they load is neither Kedro nor MLflow, and their public names are there."""

import importlib
import subprocess
import sys

import pytest

ROOMS = ("fields", "images", "metrics", "functasets", "loading", "models", "training")


def test_rooms_load_neither_kedro_nor_mlflow():
    """In one process of its own, since importing them takes seconds."""
    program = f"""
import importlib, sys
for room in {[*ROOMS, "evaluation.generation"]}:
    importlib.import_module(f"spatial_functa_pipeline.{{room}}")
    print(room, *{{"kedro", "kedro_datasets", "kedro_mlflow", "mlflow"}} & set(sys.modules), sep=":")
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [*ROOMS, "evaluation.generation"]


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_names_as_public_is_there(room):
    module = importlib.import_module(f"spatial_functa_pipeline.{room}")
    assert len(module.__doc__) > 50
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        if hasattr(value, "__module__"):
            assert not value.__module__.startswith("spatial_functa_pipeline") or value.__doc__, name
