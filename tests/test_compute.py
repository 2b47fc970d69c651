"""Compilation: when, and that it changes nothing but the time."""

import pytest
import torch

from spatial_functa_pipeline import compute
from spatial_functa_pipeline.compute import compiled
from spatial_functa_pipeline.config import RuntimeConfig
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField

CPU = torch.device("cpu")


def choose(mode, calls):
    return compiled(torch.sin, RuntimeConfig(compile=mode), calls=calls, device=CPU, name="test")


def test_auto_compiles_only_what_is_called_often(monkeypatch):
    assert choose("off", 10**9) is torch.sin
    assert choose("auto", 10) is torch.sin
    assert choose("on", 1) is not torch.sin
    monkeypatch.setattr(compute.shutil, "which", lambda name: "/usr/bin/" + name)
    assert choose("auto", 10**9) is not torch.sin
    monkeypatch.setattr(compute.shutil, "which", lambda name: None)
    assert choose("auto", 10**9) is torch.sin


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_the_field_traces_as_one_graph_with_the_same_gradients(interpolation):
    """`fullgraph` fails where anything in the inner loop would fall back to Python; no C++ compiler is needed here."""
    torch.manual_seed(0)
    field = SpatialField(FieldSpec((2, 2), 3, (8, 8), 1, interpolation, 8, 3, 10.0)).double()
    images = torch.rand(2, 8, 8, 1, dtype=torch.float64)
    graph = torch.compile(field, fullgraph=True, dynamic=False, backend="aot_eager")

    def gradients(function):
        return torch.autograd.grad((function(images)[0] - images).square().mean(), list(field.parameters()))

    for traced, eager in zip(gradients(graph), gradients(field), strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-8, atol=1e-12)
