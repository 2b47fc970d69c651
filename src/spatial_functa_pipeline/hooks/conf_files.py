"""What is wrong with the files of `conf/` themselves, before anything is read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_REFERENCE = re.compile(r"\$\{globals:\s*(\w+)")


class ConfFileHooks:
    """Looks at the files of `conf/` before Kedro reads them: its own error has another line, and a traceback."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Raises click.ClickException, with a line for each thing that is wrong."""
        loader = context.config_loader
        assert isinstance(loader, OmegaConfigLoader)
        require_sound_files(loader)


def require_sound_files(loader: OmegaConfigLoader) -> None:
    """Raises click.ClickException, with a line for each thing that is wrong with the files that the loader reads."""
    conf, env = Path(loader.conf_source), loader.env or loader.default_run_env
    if conf.is_dir() and not (conf / env).is_dir():  # it may also be an archive, or an address
        environments = sorted(folder.name for folder in conf.iterdir() if folder.is_dir())
        raise click.ClickException(
            f"Nothing was run: there is no environment {env} in {conf}; there are: "
            + ", ".join(name for name in environments if name != loader.base_env)
        )
    if problems := file_problems(conf, dict.fromkeys([loader.base_env, env])):
        raise click.ClickException("\n  ".join(["Nothing was run, since configuration files are wrong:", *problems]))


def file_problems(conf: Path, environments: Iterable[str]) -> list[str]:
    """A line for each YAML file that cannot be read, and for each key of `globals.yml` that nothing reads.

    Args:
        conf: the folder of the environments.
        environments: their names, as far as they are read.
    """
    files = [file for name in environments for file in sorted((conf / name).rglob("*.y*ml"))]
    if broken := list(filter(None, map(_syntax_problem, files))):
        return broken
    known = {key for file in files for key in _REFERENCE.findall(file.read_text())}
    return [problem for file in files if file.stem == "globals" for problem in _unread_keys(file, known)]


def _syntax_problem(file: Path) -> str:
    try:
        OmegaConf.load(file)  # as Kedro will: it knows more faults than YAML itself, such as a key that stands twice
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        return f"{file}, line {line}: no YAML: {error.problem or error.context}"
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        return f"{file}: no YAML: {error}"
    except (OSError, OmegaConfBaseException) as error:
        return f"{file}: {str(error).splitlines()[0]}"
    return ""


def _unread_keys(file: Path, known: set[str]) -> Iterator[str]:
    for key in yaml.safe_load(file.read_text()) or {}:
        if key not in known and not str(key).startswith("_"):
            yield f"{file}: nothing reads {key}; known here: {', '.join(sorted(known))}"
