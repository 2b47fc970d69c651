"""A line of advice after an error that we know."""

from kedro.framework.hooks import hook_impl

from spatial_functa_pipeline.hooks.advice_table import advice_on


class AdviceHooks:
    """Adds to an error what to do about it: a note, which stands below the error's own message."""

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Kedro calls `on_node_error` for a node alone, this also for loading and saving, which builds the functasets."""
        if advice := advice_on(error):
            error.add_note(advice)
