"""Who is measured against whom: the project's field, and the usual formulation in PyTorch and in JAX."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from cases import Case, Precision
from ours import Ours
from torch import Tensor
from torch_peer import TorchPeer

Call = Callable[[], Any]
Name = Literal["ours", "ours in torch operations", "jax", "torch"]


class Contestant:
    """Something that encodes the case's images and takes its outer step; `gradients` are named as the field's."""

    def __init__(self, encode: Call, outer: Call, to_tensor: Callable[[Any], Tensor] = lambda array: array) -> None:
        self.encode, self.outer, self._to_tensor = encode, outer, to_tensor

    def latents(self) -> Tensor:
        """Latents (B, s, s, c) of the images."""
        return self._to_tensor(self.encode())

    def gradients(self) -> dict[str, Tensor]:
        """The outer gradient, by the parameters' names."""
        return {name: self._to_tensor(value).clone() for name, value in self.outer()[1].items()}


def our_contestant(case: Case, precision: Precision) -> Contestant:
    """The project's field."""
    ours, images = Ours(case, precision), case.images()
    return Contestant(lambda: ours.encode(images), lambda: ours.outer(images))


def torch_contestant(case: Case) -> Contestant:
    """The usual formulation in PyTorch."""
    peer, images, parameters = TorchPeer(case.spec("float32")), case.images(), dict(case.field().named_parameters())
    return Contestant(lambda: peer.encode(parameters, images), lambda: peer.outer(parameters, images))


def jax_contestant(case: Case) -> Contestant:
    """The usual formulation in JAX."""
    import jax
    import numpy as np

    encode, outer, inputs = _in_jax(case)
    return Contestant(
        # JAX returns before it has computed: without waiting, only the call would be timed.
        lambda: jax.block_until_ready(encode(*inputs)),
        lambda: jax.block_until_ready(outer(*inputs)),
        lambda array: torch.from_numpy(np.array(array)),
    )


def _in_jax(case: Case) -> tuple[Any, Any, tuple[Any, Any]]:
    """`encode` and `outer`, jitted, and what either is called with."""
    import jax
    import jax_peer

    parameters = jax_peer.to_jax({name: value.detach().numpy() for name, value in case.field().named_parameters()})
    return *jax_peer.build(case.spec("float32")), (parameters, jax.numpy.asarray(case.images().numpy()))


def first_outer_step(name: Name, case: Case, precision: Precision) -> Call:
    """The outer step of a contestant that has taken none yet; what has to be compiled has been."""
    if name == "jax":
        import jax

        _, outer, inputs = _in_jax(case)
        compiled = outer.lower(*inputs).compile()
        return lambda: jax.block_until_ready(compiled(*inputs))
    if name == "torch":
        return torch_contestant(case).outer
    ours, images = Ours(case, precision, compile="auto" if name == "ours" else "off"), case.images()
    return lambda: ours.outer(images)
