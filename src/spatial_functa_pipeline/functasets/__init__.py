"""The functaset: its store, statistics, normalisation and reading."""
