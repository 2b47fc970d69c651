"""Studies that were never run, and their tables."""

from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.studies.runs import MeasuredRun, runs_of
from spatial_functa_pipeline.studies.tables import results_table, runs_table


def study_of(**parts):
    return StudyConfig.model_validate({"title": "A study", "outputs": ["metrics"], "measure": ["psnr"], **parts})


def tables(study, failing=None, **metrics):
    """The tables of runs and of results; metrics map a run to a number, or None where there is none.

    `failing` has what became of runs, by label and seed, of which nothing was measured.
    """
    measured = []
    for run in runs_of(study):
        if state := (failing or {}).get((run.variant.label, run.seed)):
            measured.append(MeasuredRun(run, state))
            continue
        values = {name: value for name, of in metrics.items() if (value := of(run)) is not None}
        measured.append(
            MeasuredRun(run, metrics=values, details=dict.fromkeys(values, "10 images"), seconds=1.0, folder="f")
        )
    runs = runs_table(study, measured)
    return runs, results_table(study, runs)
