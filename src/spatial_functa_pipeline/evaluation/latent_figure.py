"""Figure of the latents' statistics."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import INK, style


def latent_statistics_figure(mean: Tensor, std: Tensor, rotated_numbers: int | None = None) -> Figure:
    """Mean and standard deviation of each latent channel, over images and cells (Fig. 8).

    Args:
        mean: `(c,)`.
        std: `(c,)`.
        rotated_numbers: how many numbers of a latent were rotated together before; None: none were.

    Raises ValueError for other shapes.
    """
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"needs mean and std of shape (c,), got {tuple(mean.shape)} and {tuple(std.shape)}")
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    if rotated_numbers is not None:
        what = (
            "the numbers of each cell" if rotated_numbers == len(mean) else f"all {rotated_numbers} numbers of a latent"
        )
        figure.suptitle(f"after a random rotation of {what}", fontsize=10)
    for axis, values, title in zip(figure.subplots(1, 2), (mean, std), ("mean", "standard deviation"), strict=True):
        axis.bar(range(len(values)), values.tolist(), color=INK, width=0.8)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("latent channel")
        axis.xaxis.get_major_locator().set_params(integer=True)
        style(axis)
    return figure
