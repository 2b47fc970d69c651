"""Kedro datasets: images in, functasets, weights."""
