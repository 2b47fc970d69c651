"""Kedro's adapters: images, functasets, weights and reports, each with a record of what made it."""
