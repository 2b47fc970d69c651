"""The benchmark of the field: its peers compute what the field does, and it notices where they do not."""

import json

import field as benchmark
import memory
import ours
import pytest
import torch
from cases import CASES, Case
from ceiling import Ceiling, Products, outer_products
from memory import Step
from torch.utils.flop_counter import FlopCounterMode
from torch_peer import TorchPeer

TINY = [
    Case(2, 3, "nearest", 8, 4, 2, resolution=8, channels=2),
    Case(2, 3, "linear", 8, 4, 2, resolution=8, channels=2),
    Case(1, 5, "nearest", 8, 3, 2, resolution=4),
]
KEYS = [
    *("configuration", "precision"),
    *("outer_step_vs_jax", "outer_step_vs_jax_range", "encode_vs_jax", "encode_vs_jax_range"),
    *("outer_step_vs_torch", "outer_step_vs_torch_range", "encode_vs_torch", "encode_vs_torch_range"),
    *("ceiling_share", "peak_memory_mb"),
]

tiny = pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)


@pytest.fixture
def eager(monkeypatch):
    """Our field without compilation, which takes longer than all of these tests."""
    monkeypatch.setattr(ours, "accelerated", lambda field, *_, **__: field)


def test_the_configurations_are_those_of_the_documentation():
    assert [case.name for case in CASES] == [
        *("8x8x16-nearest-w64-d6", "8x8x16-nearest-w128-d6", "8x8x16-nearest-w256-d10"),
        *("4x4x64-nearest-w128-d6", "8x8x16-linear-w128-d6", "1x1x256-nearest-w128-d6"),
    ]


@tiny
def test_torch_peer_computes_the_field(case):
    """In float64, where a wrong formula cannot hide behind rounding."""
    field, images = case.field().double(), case.images().double()
    peer, parameters = TorchPeer(case.spec("float32"), torch.float64), dict(field.named_parameters())
    torch.testing.assert_close(peer.encode(parameters, images), field.encode(images), rtol=1e-9, atol=1e-13)
    loss, gradients = peer.outer(parameters, images)
    wanted = (field(images)[0] - images).square().mean()
    torch.testing.assert_close(loss, wanted.detach())
    for name, gradient in zip(gradients, torch.autograd.grad(wanted, list(parameters.values())), strict=True):
        assert gradient.norm() > 0, name
        assert benchmark.relative_error(gradients[name], gradient) < 1e-9, name


@tiny
def test_jax_peer_computes_the_field(case, eager):
    pytest.importorskip("jax")
    peer = benchmark.jax_contestant(case)
    others = {"jax": (peer, "float32"), "ours": (benchmark.our_contestant(case, "float32"), "float32")}
    benchmark.check_agreement(benchmark.torch_contestant(case), others, case.name)


@tiny
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_our_contestant_is_the_field(case, precision, eager):
    mine = benchmark.our_contestant(case, precision)
    benchmark.check_agreement(benchmark.torch_contestant(case), {"ours": (mine, precision)}, case.name)


def test_encoding_takes_the_batches_of_the_functaset(eager):
    mine, images = ours.Ours(TINY[0], "float32"), TINY[0].images(5)
    sizes, encode = [], mine._encode
    mine.encode_batch, mine._encode = 2, lambda part: sizes.append(len(part)) or encode(part)
    torch.testing.assert_close(mine.encode(images), mine.field.encode(images))
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("latents", lambda latents, gradients: latents.mul_(1.001)),
        ("latents", lambda latents, gradients: latents.fill_(torch.nan)),
        ("inner_rates", lambda latents, gradients: gradients["inner_rates"].mul_(1.01)),
        ("layers.0.bias", lambda latents, gradients: gradients["layers.0.bias"].fill_(torch.inf)),
    ],
)
def test_a_disagreement_ends_the_benchmark(what, spoil):
    reference = benchmark.torch_contestant(TINY[0])
    latents, gradients = reference.latents(), reference.gradients()
    copy = benchmark.Contestant(lambda: latents, lambda: (None, gradients))
    benchmark.check_agreement(reference, {"copy": (copy, "float32")}, "here")
    spoil(latents, gradients)
    with pytest.raises(benchmark.DisagreementError, match=rf"here: copy .*{what}"):
        benchmark.check_agreement(reference, {"copy": (copy, "float32")}, "here")


def test_a_forgotten_parameter_ends_the_benchmark():
    reference = benchmark.torch_contestant(TINY[0])
    latents, gradients = reference.latents(), reference.gradients()
    del gradients["inner_rates"]
    copy = benchmark.Contestant(lambda: latents, lambda: (None, gradients))
    with pytest.raises(benchmark.DisagreementError, match="other parameters"):
        benchmark.check_agreement(reference, {"copy": (copy, "float32")}, "here")


def test_contestants_take_turns():
    calls = []
    turns = list(benchmark.take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 3, seconds=0))
    assert calls == [*"aabb"] * 3  # an untimed call and a timed one
    assert [set(turn) for turn in turns] == [{"a", "b"}] * 3
    assert all(seconds > 0 for turn in turns for seconds in turn.values())
    assert benchmark.medians([{"a": 3.0}, {"a": 1.0}, {"a": 100.0}]) == {"a": 3.0}


def test_the_ceiling_counts_the_products_of_the_field():
    """Against torch's own count, which sees the interpolation and the first layer too."""
    for case in TINY:
        case = Case(case.side, 4, case.interpolation, 128, 5, 2, resolution=16)
        field, images = case.field(), case.images()
        with FlopCounterMode(display=False) as counter:
            (field(images)[0] - images).square().mean().backward()
        products = outer_products(case)
        assert products.inner + products.final == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_final_decoding_is_held_against_its_own_ceiling():
    assert Products(inner=4.0, final=6.0).shortest_time(inner_rate=4.0, final_rate=2.0) == 1 + 3


def test_the_ceiling_is_the_best_seen():
    ceiling = Ceiling(16, "float32")
    first = ceiling.measure(seconds=1e-5, repeats=1)
    assert first > 0
    ceiling.best = 1e30
    assert ceiling.measure(seconds=1e-5, repeats=1) == 1e30


@pytest.mark.skipif(not memory.can_measure(), reason="peak memory is measured on Linux")
def test_peak_memory_is_what_a_call_holds_at_most():
    size = 64 * 2**20
    risen = memory.rise(lambda: torch.ones(size, dtype=torch.uint8))
    assert 0.9 * size <= risen < 1.5 * size  # the kernel counts resident pages in batches, processor by processor


@pytest.fixture
def small_benchmark(monkeypatch, eager):
    """The whole command, on tiny fields in this process."""
    monkeypatch.setattr(benchmark, "CASES", TINY[:2])
    monkeypatch.setattr(benchmark, "can_measure", lambda: True)
    monkeypatch.setattr(benchmark, "peak_memory", lambda contestant, case, precision: Step(1_500_000, 1.0))
    monkeypatch.setattr(benchmark.take_turns, "__defaults__", (0.0,))
    monkeypatch.setattr(benchmark, "use_all_cores", lambda: 1)
    monkeypatch.setattr(Ceiling.measure, "__defaults__", (1e-5, 1))


def test_the_json_has_one_object_for_each_configuration_and_precision(small_benchmark, tmp_path, capsys):
    path = tmp_path / "field.json"
    assert benchmark.main(["--without-jax", "--rounds", "2", "--json", str(path)]) == 0
    *results, growth = json.loads(path.read_text())
    assert [(result["configuration"], result["precision"]) for result in results] == [
        (case.name, precision) for case in TINY[:2] for precision in ("float32", "bf16")
    ]
    for result in results:
        assert list(result) == KEYS
        assert result["outer_step_vs_jax"] is result["encode_vs_jax"] is result["encode_vs_jax_range"] is None
        assert min(result[key] for key in ("outer_step_vs_torch", "encode_vs_torch", "ceiling_share")) > 0
        assert result["peak_memory_mb"] == 1.5
    assert growth["configuration"] == TINY[0].name
    assert growth["encode_growth_8_to_256"] > -1
    printed = capsys.readouterr()
    assert "JAX was left out" in printed.out
    assert TINY[1].name in printed.out
    assert "agrees" in printed.err


def test_ratios_are_the_peers_time_over_ours(small_benchmark, monkeypatch):
    times = {"torch": 8.0, "float32": 2.0, "bf16": 0.5}
    monkeypatch.setattr(benchmark, "take_turns", lambda calls, rounds: [{name: times[name] for name in calls}])
    results, _ = benchmark.measure(TINY[0], ["float32", "bf16"], 1, with_jax=False)
    assert [result["outer_step_vs_torch"] for result in results] == [4, 16]
    assert [result["encode_vs_torch"] for result in results] == [4, 16]


def test_a_ratio_stands_beside_its_range_over_the_rounds(small_benchmark, monkeypatch, capsys):
    seconds = iter([8.0, 8.0, 9.0, 9.0, 12.0, 12.0])  # of torch: encoding and outer step, round by round
    monkeypatch.setattr(
        benchmark,
        "take_turns",
        lambda calls, rounds: [{"torch": next(seconds)} | dict.fromkeys(set(calls) - {"torch"}, 2.0)],
    )
    results, times = benchmark.measure(TINY[0], ["float32"], 3, with_jax=False)
    for key in ("outer_step", "encode"):
        assert results[0][f"{key}_vs_torch"] == 4.5
        assert results[0][f"{key}_vs_torch_range"] == (4, 6)
    benchmark.Console(width=200).print(benchmark.table(results, times, False))
    assert capsys.readouterr().out.count("4.5 (4.0–6.0)") == 2


def test_only_what_is_asked_for_is_measured(small_benchmark, tmp_path):
    path = tmp_path / "field.json"
    arguments = ["--configurations", TINY[1].name, "--precisions", "bf16", "--rounds", "1", "--without-jax"]
    assert benchmark.main([*arguments, "--json", str(path)]) == 0
    result, growth = json.loads(path.read_text())
    assert (result["configuration"], result["precision"]) == (TINY[1].name, "bf16")
    assert (growth["configuration"], growth["precision"]) == (TINY[1].name, "bf16")


def test_a_disagreement_is_the_exit_status(small_benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "TOLERANCES", {"float32": (0.0, 0.0), "bf16": (0.0, 0.0)})
    assert benchmark.main(["--without-jax", "--rounds", "1"]) == 1
    assert "do not compute the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pip install -e '.[bench]'"),
        (["--without-jax", "--rounds", "0"], "--rounds must be at least 1"),
        (["--without-jax", "--json", "/nowhere/at/all.json"], "there is no folder"),
        (["--without-jax", "--configurations", "9x9x9"], "invalid choice"),
    ],
)
def test_wrong_command_lines_say_what_to_do(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
