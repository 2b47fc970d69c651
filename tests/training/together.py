"""Several trainings in one launch, as each launch costs seconds."""

import tiny_trainings as tiny

from spatial_functa_pipeline.training.launch import several_processes


@several_processes
def train_all(folder, *, run):
    """Field (from a checkpoint if there is one), a field that rolls back, and what follows, with their histories."""
    field = tiny.train(run.checkpoint.path, run.runtime, run.report)
    shaky = tiny.train(folder / "shaky.pt", run.runtime, **SHAKY)
    return {
        "field": field,
        "shaky": shaky,
        **tiny.train_downstream(folder, run.runtime, micro_batch=3),
    }


SHAKY = {"learning_rate": 1e-2, "guard": {"margin": 0.01, "retries": 20}, "ema_decay": None, "validate_every": 1}
"""A rate at which the field falls from its best, by a little."""
