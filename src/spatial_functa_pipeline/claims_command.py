"""`kedro claims`: which of the paper's claims hold, by the tables of all studies that have been run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.startup import ProjectMetadata
from omegaconf import OmegaConf

from spatial_functa_pipeline.run_command import ProjectCommand

if TYPE_CHECKING:
    from spatial_functa_pipeline.config.claims import ClaimsConfig
    from spatial_functa_pipeline.studies.ledger import Environment

CLAIMS = "conf/claims.yml"
PAGE = "docs/claims.md"
MADE_BY = """\
This page is made by `kedro claims`, from the tables of the [studies](studies.md) that have been run.
Do not edit it: the claims and their rules are in `conf/claims.yml`.
"""


@click.command("claims", cls=ProjectCommand)
@click.option("--output", type=click.Path(path_type=Path), help=f"The page.  [default: {PAGE}]")
@click.pass_obj
def claims(metadata: ProjectMetadata, output: Path | None) -> None:
    """Write which of the paper's claims hold, by the tables of the studies that have been run.

    The claims and their rules are in conf/claims.yml. What has no table is "not measured".
    """
    from spatial_functa_pipeline.files import replace_durably
    from spatial_functa_pipeline.studies.claims import ClaimError
    from spatial_functa_pipeline.studies.ledger import verdicts

    project = metadata.project_path
    config, found = read_claims(project / CLAIMS), environments(project)
    if not any(one.tables or one.changed for one in found):
        raise click.ClickException(
            "no study has been run yet, so that nothing would be measured; `kedro study` lists them"
        )
    try:
        page = page_of(config, found)
    except ClaimError as error:
        raise click.ClickException(f"{CLAIMS} does not fit a table: {error}") from None
    path = output or project / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_durably(path) as temporary:
        temporary.write_text(page)
    answers = [answer.answer for claim in config.claims for _, answer in verdicts(claim, found)]
    counts = ", ".join(f"{answers.count(answer)} {answer}" for answer in dict.fromkeys(answers))
    click.echo(f"{len(config.claims)} claims: {counts}; in {path}")


def page_of(config: ClaimsConfig, found: list[Environment]) -> str:
    """The page, as Markdown. Raises studies.claims.ClaimError if a rule does not fit a table."""
    from spatial_functa_pipeline.studies.ledger import ledger

    return ledger(config, found, MADE_BY, lambda study, one: f"kedro study {study} --env {one.name}")


def read_claims(file: Path) -> ClaimsConfig:
    """Keys that begin with `_` are for the file itself, which names rows there that several rules speak of.

    Raises click.ClickException, with a line for each thing that is wrong with it.
    """
    import yaml
    from pydantic import ValidationError

    from spatial_functa_pipeline.config.claims import ClaimsConfig
    from spatial_functa_pipeline.hooks.parameters import problem_lines

    try:
        written = yaml.safe_load(file.read_text())
        return ClaimsConfig.model_validate({key: part for key, part in written.items() if not key.startswith("_")})
    except ValidationError as error:
        problems = problem_lines(error, "claims")
    except (OSError, yaml.YAMLError, AttributeError) as error:
        problems = [str(error)]
    raise click.ClickException("\n  ".join([f"{file} cannot be read:", *problems]))


def environments(project: Path) -> list[Environment]:
    """All that have studies, with the tables of those that have been run."""
    from spatial_functa_pipeline.studies.claims import read_tables
    from spatial_functa_pipeline.studies.ledger import Environment
    from spatial_functa_pipeline.study_plan import RESULTS, read_study, studies_of

    found = []
    for folder in sorted((project / "conf").glob("*/studies")):
        env = folder.parent.name
        written: Any = OmegaConf.load(folder.parent / "globals.yml")
        studies = {name: read_study(file) for name, file in studies_of(project / "conf", env).items()}
        tables, changed = read_tables(project / RESULTS / written.dataset, studies)
        found.append(Environment(env, written.dataset, frozenset(studies), tables, changed))
    return found
