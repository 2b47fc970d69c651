"""Files of conf/ that are wrong are named, with the line."""

import pytest
from click import ClickException

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.hooks.conf_files import file_problems, require_sound_files


def loader_of(conf, env):
    return ProjectConfigLoader(str(conf), env, base_env="base", default_run_env="own")


@pytest.fixture
def conf(tmp_path):
    for name in ("base", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "base/parameters.yml").write_text("dataset: ${globals:dataset}\nshape: ${globals:latent_shape}\n")
    (tmp_path / "own/globals.yml").write_text("dataset: own\n_note: free\n")
    return tmp_path


def test_sound_files_have_no_problems(conf):
    assert file_problems(conf, ["base", "own"]) == []


def test_a_key_of_globals_that_nothing_reads_is_named_with_those_that_are_read(conf):
    (conf / "own/globals.yml").write_text("dataset: own\nlatentshape: 4x4x8\n")
    assert file_problems(conf, ["base", "own"]) == [
        f"{conf}/own/globals.yml: nothing reads latentshape; known here: dataset, latent_shape"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3),
        ("a: 1\n\n\tb: 2\n", 3),
        ("a: 'open\n", 2),
        ("a: b: c\n", 1),
        ("a: 1\nb: 2\n\na: 3\n", 4),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4),
    ],
)
def test_a_syntax_error_is_named_with_file_and_line(conf, text, line):
    (conf / "own/parameters.yml").write_text(text)
    (problem,) = file_problems(conf, ["base", "own"])
    assert problem.startswith(f"{conf}/own/parameters.yml, line {line}: no YAML: ")


def test_a_key_that_stands_twice_is_named(conf):
    """YAML itself takes the last one; OmegaConf, and so Kedro, refuses both."""
    (conf / "own/parameters.yml").write_text("steps: 1\nsteps: 2\n")
    (problem,) = file_problems(conf, ["base", "own"])
    assert problem.endswith("found duplicate key steps")


@pytest.mark.parametrize("text", ["a: '${globals:'\n", "5\n"], ids=["reference", "number"])
def test_what_is_yaml_but_no_configuration_is_named_with_the_file(conf, text):
    (conf / "own/parameters.yml").write_text(text)
    (problem,) = file_problems(conf, ["base", "own"])
    assert problem.startswith(f"{conf}/own/parameters.yml: ")


def test_other_environments_are_not_read(conf):
    (conf / "own/parameters.yml").write_text("a: [")
    assert file_problems(conf, ["base"]) == []


def test_an_environment_that_is_not_there_is_named_with_those_that_are(conf):
    require_sound_files(loader_of(conf, None))
    require_sound_files(loader_of(conf, "own"))
    with pytest.raises(ClickException) as error:
        require_sound_files(loader_of(conf, "onw"))
    assert str(error.value) == f"Nothing was run: there is no environment onw in {conf}; there are: own"


def test_a_syntax_error_in_globals_is_named_before_any_hook(conf):
    (conf / "own/globals.yml").write_text("dataset: own\n\n\tb: 2\n")
    with pytest.raises(ClickException, match=rf"are wrong:\n  {conf}/own/globals\.yml, line 3: no YAML: "):
        loader_of(conf, "own")
