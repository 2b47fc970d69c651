"""The flow: thin nodes, one folder per pipeline."""
