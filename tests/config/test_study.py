"""What a study's file may say, and which variants it means."""

import pytest
from pydantic import ValidationError

from spatial_functa_pipeline.config.study import StudyConfig

SHAPES = {"latent_shape": ["4x4x8", "8x8x4"]}
LEAST = {"title": "A study", "outputs": ["metrics"], "measure": ["psnr"]}


def study(**parts):
    return StudyConfig.model_validate({**LEAST, **parts})


def labels(**parts):
    return [variant.label for variant in study(**parts).all_variants]


def test_a_grid_has_all_combinations_in_the_order_in_which_they_are_written():
    assert labels(vary={**SHAPES, "interpolation": ["nearest", "linear"]}) == [
        "latent_shape=4x4x8, interpolation=nearest",
        "latent_shape=4x4x8, interpolation=linear",
        "latent_shape=8x8x4, interpolation=nearest",
        "latent_shape=8x8x4, interpolation=linear",
    ]


def test_variants_come_after_the_grid_and_have_its_set():
    found = study(
        set={"seed_of_all": 1, "a": 1},
        vary={"a": [2]},
        variants=[{"name": "MLP", "set": {"b": 3}, "vary": SHAPES}, {"name": "plain"}],
    ).all_variants
    assert [(one.label, one.parameters) for one in found] == [
        ("a=2", {"seed_of_all": 1, "a": 2}),
        ("MLP, latent_shape=4x4x8", {"seed_of_all": 1, "a": 1, "b": 3, "latent_shape": "4x4x8"}),
        ("MLP, latent_shape=8x8x4", {"seed_of_all": 1, "a": 1, "b": 3, "latent_shape": "8x8x4"}),
        ("plain", {"seed_of_all": 1, "a": 1}),
    ]


def test_without_a_name_its_own_set_tells_a_variant_from_others():
    assert labels(variants=[{"set": {"a": None, "b": True}}, {"set": {"a": 1.5}}]) == ["a=null, b=true", "a=1.5"]


def test_what_variants_differ_in():
    found = study(set={"a": 1, "b": 2}, variants=[{"name": "x", "set": {"a": 2}}, {"name": "y", "set": {"c": [1]}}])
    assert found.varied == ["a", "c"]
    assert found.keys == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "give vary, variants, or both"),
        ({"vary": {"a": []}}, "at least 1 item"),
        ({"vary": SHAPES, "seeds": []}, "at least 1 item"),
        ({"vary": SHAPES, "seeds": [1, 1]}, "a seed stands twice"),
        ({"vary": SHAPES, "outputs": []}, "at least 1 item"),
        ({"vary": SHAPES, "seed": 1}, "unknown key seed; known keys: title"),
        ({"vary": {"seed": [0, 1]}}, "seeds has those"),
        ({"variants": [{"name": "x", "set": {"a": 1}}, {"name": "x"}]}, "two variants are called the same, x"),
        ({"vary": {"a": [1, 1]}}, "two variants are called the same, a=1"),
        ({"variants": [{}]}, "a variant of the study's own values needs a name"),
        ({"vary": SHAPES, "figure": {"kind": "pie"}}, "'bars' or 'lines'"),
        ({"vary": SHAPES, "figure": {"kind": "bars", "metrics": ["x"]}}, "figure.metrics has x"),
        ({"vary": SHAPES, "figure": {"kind": "bars", "x": "a"}}, "figure.x is a, in which no two variants differ"),
        ({"vary": SHAPES, "figure": {"kind": "bars", "by": "a"}}, "figure.by is a, .* choose latent_shape, name"),
    ],
)
def test_what_makes_no_sense_is_an_error(parts, message):
    with pytest.raises(ValidationError, match=message):
        study(**parts)
