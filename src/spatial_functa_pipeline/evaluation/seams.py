"""Seams at the borders of cells, as a metric."""

from __future__ import annotations

from spatial_functa_pipeline.metrics.seams import SeamSteps


def seam_metric(images: str, seams: SeamSteps, measured_on: str) -> dict[str, tuple[float, str]]:
    """`seam_ratio_<images>` and what it was measured on, with the ratio of each axis; nothing where there are no cells."""
    if (ratio := seams.ratio()) is None:
        return {}
    axes = ", ".join("no borders" if one is None else f"{one:.3f}" for one in seams.ratios_by_axis())
    return {f"seam_ratio_{images}": (ratio, f"{measured_on}: steps across cells ÷ within; by axis {axes}")}
