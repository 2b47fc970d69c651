"""A line of advice after an error that we know."""

import logging

from kedro.framework.hooks import hook_impl

logger = logging.getLogger(__name__)


class AdviceHooks:
    """Logs what to do about an error, before Kedro shows it."""

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Kedro calls `on_node_error` for a node alone, this also for loading and saving, which builds the functasets."""
        from spatial_functa_pipeline.hooks.advice_table import advice_on  # here: with all the library it takes seconds

        if advice := advice_on(error):
            logger.error("%s", advice)
