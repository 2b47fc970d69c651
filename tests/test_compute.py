"""What a field is accelerated with, and that it changes nothing but the time."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile

import pytest
import torch

from spatial_functa_pipeline.compute import accelerated, float32_products, tf32_products
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields import native_engine as native
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def make(width=32, interpolation="nearest", precision="float32"):
    torch.manual_seed(0)
    return SpatialField(
        FieldSpec(LatentShape((2, 2), 3), (8, 8), 1, interpolation, width, 3, 10.0, precision=precision)
    )


def choose(mode, calls, width=32):
    field = make(width)
    return field, accelerated(field, RuntimeConfig(compile=mode), calls=calls, device=CPU, name="test")


@COMPILER
def test_a_cpu_uses_its_kernel_unless_told_not_to():
    for calls in (1, 10**9):
        field, function = choose("auto", calls)
        assert isinstance(field.engine, NativeEngine)
        assert function is field
    field, function = choose("on", 1)
    assert isinstance(field.engine, NativeEngine)
    assert function is not field
    field, function = choose("off", 10**9)
    assert isinstance(field.engine, TorchEngine)
    assert function is field


@COMPILER
def test_without_the_kernel_auto_compiles_only_what_is_called_often():
    field, function = choose("auto", 10, width=24)
    assert isinstance(field.engine, TorchEngine)
    assert function is field
    assert choose("auto", 10**9, width=24)[1] is not field


def test_no_compiler_is_said_and_costs_only_time(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.load.cache_clear()
    try:
        field, function = choose("auto", 10**9)
        assert isinstance(field.engine, TorchEngine)
        assert function is field
        assert "several times slower" in caplog.text
        assert "install g++" in caplog.text
    finally:
        native.load.cache_clear()


@COMPILER
def test_a_kernel_that_cannot_be_compiled_names_the_compilers_error(monkeypatch, tmp_path):
    broken = tmp_path / "kernel.cpp"
    broken.write_text("this is no C++")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_SOURCE", broken)
    native.load.cache_clear()
    try:
        with pytest.raises(native.NativeEngineError, match=r"g\+\+ failed: .*error"):
            native.load()
        assert list((tmp_path / "cache" / "spatial_functa_pipeline").iterdir()) == []
    finally:
        native.load.cache_clear()


def _no_home(monkeypatch, tmp_path):
    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def _unwritable_cache(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.fixture
def fresh_engine():
    """The engine as a new process has it; and again afterwards."""
    native.load.cache_clear()
    yield
    native.load.cache_clear()


@pytest.mark.slow
@COMPILER
@pytest.mark.usefixtures("fresh_engine")
@pytest.mark.parametrize(("spoil", "reason"), [(_no_home, "no home folder"), (_unwritable_cache, "Not a directory")])
def test_without_a_cache_folder_the_engine_is_compiled_for_the_process(monkeypatch, caplog, tmp_path, spoil, reason):
    spoil(monkeypatch, tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    field, _ = choose("auto", 1)
    assert isinstance(field.engine, NativeEngine)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot be kept" in warning
    assert reason in warning
    assert list(temporary.iterdir()) == []
    latents = torch.randn(2, 2, 2, 3)
    found, field.engine = field.decode(latents), TorchEngine()
    torch.testing.assert_close(found, field.decode(latents))


@COMPILER
@pytest.mark.usefixtures("fresh_engine")
@pytest.mark.parametrize("spoil", [_no_home, _unwritable_cache])
def test_without_any_folder_the_field_is_plain_torch(monkeypatch, caplog, tmp_path, spoil):
    spoil(monkeypatch, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    field, _ = choose("auto", 1)
    assert isinstance(field.engine, TorchEngine)
    assert "test: plain torch operations, several times slower" in caplog.messages[-1]


@COMPILER
def test_the_engine_is_compiled_anew_for_other_libraries(monkeypatch, tmp_path):
    """A file of another glibc or libgomp may not load, or misbehave: the key has what the compiler links."""
    library, compiler = tmp_path / "library", tmp_path / "g++"
    compiler.touch()

    def key(which, content):
        library.write_bytes(content)
        compiler.write_text(
            f'#!/bin/sh\ncase "$1" in -print-file-name={which}) echo {library};; *) exec {shutil.which("g++")} "$@";; esac\n'
        )
        compiler.chmod(0o755)
        return native._key([str(compiler)])

    found = [key("no", b""), *(key(which, text) for which in ("libc.so.6", "libgomp.so.1") for text in (b"1", b"2"))]
    assert found[0] == native._key(["g++"])
    monkeypatch.setattr(native, "_FLAGS", [*native._FLAGS, "-g"])
    found.append(native._key(["g++"]))
    assert len(set(found)) == len(found)


@pytest.mark.slow
@COMPILER
def test_processes_may_compile_the_engine_at_once(tmp_path):
    script = "from spatial_functa_pipeline.fields import native_engine as e; e.load(); print(e.has_bf16_products())"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    assert {process.communicate()[0] for process in processes} <= {b"True\n", b"False\n"}
    assert [process.returncode for process in processes] == [0, 0]
    (library,) = (tmp_path / "spatial_functa_pipeline").iterdir()
    assert library.name.endswith(".so")


@pytest.mark.slow
@COMPILER
def test_the_kernel_is_compiled_once_and_a_damaged_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    try:
        native.load()
        (library,) = (tmp_path / "spatial_functa_pipeline").iterdir()
        written = library.stat().st_mtime_ns
        native.load.cache_clear()
        native.load()
        assert library.stat().st_mtime_ns == written
        damaged = tmp_path / "other" / "spatial_functa_pipeline" / library.name
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(b"damaged")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        native.load.cache_clear()
        with pytest.raises(native.NativeEngineError, match="delete it"):
            native.load()
    finally:
        native.load.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kernel", [TorchEngine(), pytest.param(NativeEngine(bf16=True), marks=COMPILER)])
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_the_field_traces_as_one_graph_with_the_same_gradients(interpolation, kernel, precision):
    """`fullgraph` fails where anything in the inner loop would fall back to Python."""
    if precision == "bf16" and isinstance(kernel, NativeEngine) and not native.has_bf16_products():
        pytest.skip("this processor has no bfloat16 products")
    field = make(interpolation=interpolation, precision=precision)
    field.engine = kernel
    images = torch.rand(2, 8, 8, 1)
    torch._dynamo.reset()  # other fields' graphs count against its limit
    graph = torch.compile(field, fullgraph=True, dynamic=False, backend="aot_eager")

    def gradients(function):
        return torch.autograd.grad((function(images)[0] - images).square().mean(), list(field.parameters()))

    for traced, eager in zip(gradients(graph), gradients(field), strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-6)


def test_tf32_is_on_only_while_it_is_asked_for():
    def state():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = state()
    with tf32_products("tf32", CUDA):
        assert state() == ("high", True)
        with float32_products():
            assert state() == ("highest", False)
        assert state() == ("high", True)
    for precision, device in (("float32", CUDA), ("bf16", CUDA), ("tf32", CPU)):
        with tf32_products(precision, device):
            assert state() == ("highest", False)
    assert state() == before


@float32_products()
def _allows_tf32():
    return torch.backends.cudnn.allow_tf32


def test_a_function_can_be_computed_without_tf32_again_and_again():
    with tf32_products("tf32", CUDA):
        assert [_allows_tf32(), _allows_tf32(), torch.backends.cudnn.allow_tf32] == [False, False, True]


def test_a_precision_that_the_device_has_not_is_said(caplog):
    caplog.set_level("INFO")
    field = make(precision="tf32")
    accelerated(field, RuntimeConfig(compile="off"), calls=1, device=CPU, name="test")
    assert "tf32 means float32 here" in caplog.text
