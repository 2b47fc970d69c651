"""`kedro run` ends an error that explains itself with its message alone."""

import io
import sys

import click
import pytest
import yaml
from click.testing import CliRunner
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline

from spatial_functa_pipeline import cli
from spatial_functa_pipeline.compute import DeviceError, resolve_device
from spatial_functa_pipeline.datasets.images import FashionMNISTDataset
from spatial_functa_pipeline.fields import NativeEngineMemoryError
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.run_command import RunCommand, known_error
from spatial_functa_pipeline.training import MachinesDidNotMeetError


def ends_with(raise_error, *arguments):
    """What a run prints whose callback raises."""
    command = RunCommand("run", callback=raise_error, params=[click.Option(["--verbose"], is_flag=True)])
    return CliRunner().invoke(command, arguments)


def no_device():
    try:
        resolve_device("cuda:99")
    except DeviceError as error:
        error.add_note("take another")
        raise DatasetError("Failed while loading") from error


def no_images():
    FashionMNISTDataset(filepath="/no/such", part="train").load()


def no_node():
    Pipeline([]).only_nodes("nobody")


def wrong_key():
    entry("images.FashionMNISTDataset", part="train", row=[0, 1])


def wrong_value():
    entry("image_folder.ImageFolderDataset", resolution=[8, 8], channels=2)


def entry(kind, **arguments):
    images = f"spatial_functa_pipeline.datasets.{kind}"
    DataCatalog.from_config({"images": {"type": images, "filepath": "x", **arguments}}).get("images")


@pytest.mark.parametrize(
    ("raise_error", "message"),
    [
        (no_device, "device is cuda:99, but"),
        (no_images, "FashionMNIST needs train-images-idx3-ubyte"),
        (no_node, "Pipeline does not contain nodes named"),
        (wrong_key, "Error: ImagesDataset.__init__() got an unexpected keyword argument 'row'"),
        (wrong_value, "Error: channels is 1 for grey or 3 for colour, got 2"),
    ],
)
def test_an_error_that_explains_itself_is_one_message(raise_error, message):
    result = ends_with(raise_error)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.endswith("\n(--verbose shows where)\n")
    assert "Traceback" not in result.output


def test_the_advice_stands_below_the_message():
    def fail():
        try:
            no_device()
        except DatasetError as error:
            error.add_note("do this")  # Kedro hands the outer error to the hooks
            raise

    assert "use cpu or auto\ntake another\ndo this\n(--verbose" in ends_with(fail).output


def test_verbose_brings_the_error_itself():
    assert isinstance(ends_with(no_device, "--verbose").exception, DatasetError)


def test_any_other_error_keeps_its_traceback():
    def slip():
        raise KeyError("x")

    assert isinstance(ends_with(slip).exception, KeyError)
    assert known_error(KeyError("x")) is None
    assert known_error(DatasetError("of another project")) is None


def test_a_slip_while_a_dataset_loads_keeps_its_traceback():
    class Slip(FashionMNISTDataset):
        def load(self):
            raise KeyError("x")

    assert isinstance(ends_with(Slip(filepath="x", part="train").load).exception, DatasetError)


def test_a_message_is_left_as_it_is():
    def refuse():
        try:
            no_images()
        except DatasetError as error:
            raise click.ClickException("Nothing was run: no images") from error

    assert ends_with(refuse).output == "Error: Nothing was run: no images\n"


@pytest.mark.parametrize("option", ["--pipeline=diffussion", "--pipelines=diffusion,diffussion"])
def test_a_pipeline_that_is_not_there_is_named_with_those_that_are(option):
    result = CliRunner().invoke(cli.run, [option])
    assert result.exit_code == 1
    assert result.output.startswith(
        "Error: Nothing was run: there is no pipeline diffussion; there are: meta_learning, "
    )
    assert set(register_pipelines()) <= set(result.output.split("are: ")[1].strip().split(", "))


@pytest.mark.parametrize("kind", [MachinesDidNotMeetError, NativeEngineMemoryError])
def test_errors_that_say_what_to_do_are_one_message(kind):
    def fail():
        raise kind("what is wrong")

    result = ends_with(fail)
    assert result.output == "Error: what is wrong\n(--verbose shows where)\n"


@pytest.mark.parametrize("arguments", [["run", "--verbose"], ["show"]])
def test_a_terminal_that_knows_only_ascii_ends_no_command(monkeypatch, arguments):
    """Of the whole group: what cannot be shown is replaced."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii"))
    group = type(cli.cli)("commands")

    @group.command("show")
    def show():
        print("8×8")  # click.echo would do without

    group.add_command(RunCommand("run", callback=show.callback, params=[click.Option(["--verbose"], is_flag=True)]))
    group(arguments, standalone_mode=False)
    sys.stdout.flush()
    assert printed.getvalue() == b"8?8\n"


def test_it_is_the_command_of_the_project():
    assert cli.run is cli.cli.commands["run"]
    names = {parameter.name for parameter in cli.run.params}
    assert {"verbose", "pipeline", "params", "only_missing_outputs", "env"} <= names


def test_parameters_in_a_file_are_those_of_the_command_line(tmp_path):
    """As `kedro study` gives them, which lists make hard to type."""
    given = {
        "seed": 1,
        "latent_shape": "8x8x4",
        "diffusion": {"training": {"guard": None, "learning_rate": 1e-05}, "conditional": False},
        "runtime": {"compile": "on"},
    }
    (tmp_path / "run.yml").write_text(yaml.safe_dump({"run": {"params": given, "env": "test"}}))
    typed = (
        "seed=1,latent_shape=8x8x4,diffusion.training.guard=null,diffusion.training.learning_rate=1e-05,"
        "diffusion.conditional=false,runtime.compile='on'"
    )
    in_file = cli.run.make_context("run", ["--config", str(tmp_path / "run.yml")]).params
    in_line = cli.run.make_context("run", ["--env", "test", "--params", typed]).params
    assert in_file["params"] == in_line["params"] == given
    assert {**in_file, "config": None} == {**in_line, "config": None}
