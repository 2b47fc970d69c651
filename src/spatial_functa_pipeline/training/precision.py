"""Matrix products in bfloat16 while a Transformer is trained."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bf16"]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has bfloat16 products of its own: emulated ones are slower than those in float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def available_precision(precision: Precision, device: torch.device, name: str) -> Precision:
    """`precision`, or float32 where the device would only emulate bf16; that is said once, with the `name` of the training."""
    if precision == "bf16" and not multiplies_bf16(device):
        logger.info("%s: this %s has no bfloat16 products; precision bf16 means float32 here", name, device.type)
        return "float32"
    return precision


def products(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context for a loss whose matrix products are to be rounded to bfloat16; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
