"""One training loop, and what it does when it goes wrong."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, Share

MuonRate = Annotated[
    PositiveFloat | None,
    Field(
        description="ours: of the weights of linear layers and convolutions between the first and the last, which Muon then "
        "has (Jordan et al. 2024); 0.02 is usual. It follows training.schedule. null: Adam has them, as all others"
    ),
]
"""Muon's learning rate in a network."""


class GuardConfig(Block):
    """What a training does when its loss is not finite, or its validation metric collapses: it rolls back.

    It goes back to the best validated state (the last one where there is no metric to be best in), and on with a lower
    learning rate.

    `retries` changes no result: with more of them, a training that gave up goes on. `margin` decides whether there is a
    roll-back, and `learning_rate_factor` what follows it: they do change results.
    """

    margin: PositiveFloat | None = Field(
        None, description="how far the validation metric may fall below its best (field: dB); null: any fall will do"
    )
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="per roll-back, from then on")
    retries: Annotated[int, Field(ge=0)] = Field(5, description="roll-backs until the training gives up")


class TrainingConfig(Block):
    """One training loop: the same knobs for the field, the classifiers and the denoisers."""

    steps: PositiveInt
    batch_size: PositiveInt
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="rows at once; the gradient is the batch's. auto: all, of which a field keeps as much as fits the memory",
    )
    learning_rate: PositiveFloat
    schedule: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    weight_decay_on: Literal["matrices", "all"] = Field(
        "matrices",
        description="ours: no biases, norms and inner rates. all: every weight, as Loshchilov & Hutter have it",
    )
    clip_norm: PositiveFloat | None = Field(1.0, description="ours; null: gradients are not clipped")
    ema_decay: Share | None = Field(
        None,
        description="of the moving average that is evaluated and kept; null: no average",
    )
    ema_ramp: bool = Field(
        True,
        description="ours: the decay after t steps is at most (1 + t) / (10 + t), so that a short training is kept",
    )
    keep: Literal["best", "last"] = Field(
        "last", description="the weights to end with. best: by the validation metric of the field or of the classifier"
    )
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    guard: GuardConfig | None = Field(GuardConfig(), description="null: a loss that is not finite is an error at once")

    @model_validator(mode="after")
    def _warmup_is_shorter(self) -> TrainingConfig:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must not exceed steps ({self.steps})")
        if self.micro_batch != "auto" and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch ({self.micro_batch}) must not exceed batch_size ({self.batch_size})")
        return self
