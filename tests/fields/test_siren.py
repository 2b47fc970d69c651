"""Products of bfloat16 factors: what is rounded, and what is not."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from spatial_functa_pipeline.fields.siren import RoundedProduct, Siren, backward, waves


def rounded(tensor):
    return tensor.to(torch.bfloat16).double()


def test_factors_are_rounded_and_sums_are_not():
    torch.manual_seed(0)
    a, b = torch.randn(50, 64), torch.randn(64, 33)
    product = RoundedProduct.apply(a, b)
    exact = rounded(a) @ rounded(b)
    assert product.dtype == torch.float32
    assert (product - exact).norm() < 1e-6 * exact.norm()
    assert (product - a.double() @ b.double()).norm() > 1e-3 * exact.norm()


def test_derivatives_are_products_of_rounded_factors():
    torch.manual_seed(0)
    a, b = torch.randn(50, 64, requires_grad=True), torch.randn(64, 33, requires_grad=True)
    direction = torch.randn(50, 33)
    found = torch.autograd.grad((RoundedProduct.apply(a, b) * direction).sum(), [a, b])
    for one, exact in zip(found, [rounded(direction) @ rounded(b).T, rounded(a).T @ rounded(direction)], strict=True):
        assert (one - exact).norm() < 1e-6 * exact.norm()


def test_derivatives_have_derivatives():
    """Σ (a b)² is of the second order in a: its gradient's derivative along a direction is 2 (direction b) bᵀ."""
    torch.manual_seed(0)
    a, b = (torch.randint(-4, 5, shape).float().requires_grad_() for shape in ((5, 4), (4, 3)))  # nothing to be rounded
    direction = torch.randint(-4, 5, (5, 4)).float()
    (gradient,) = torch.autograd.grad(RoundedProduct.apply(a, b).square().sum(), a, create_graph=True)
    (second,) = torch.autograd.grad((gradient * direction).sum(), a)
    torch.testing.assert_close(second, 2 * direction @ b @ b.T)


class Products(TorchDispatchMode):
    """Notes the matrix products: the function, and the data types of its factors and result."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "mm" in str(function):
            self.seen.append((str(function), args[0].dtype, args[1].dtype, result.dtype))
        return result


@pytest.mark.filterwarnings("ignore")  # there may be no CUDA on this machine
def test_cuda_multiplies_bf16_and_gives_float32():
    """With tensors that have shapes and devices alone: no CUDA is needed, and none is tried."""
    with FakeTensorMode(), Products() as products, torch.no_grad():
        hidden = torch.empty(2, 32, 32, device="cuda")
        siren = Siren(torch.empty(5, 32, device="cuda"), hidden, *(torch.empty(0, device="cuda"),) * 2)
        layers = waves(siren, torch.empty(7, 1, 3, 32, device="cuda"), "bf16")
        gradients = backward(siren, torch.empty(7, 5, 32, device="cuda"), layers, "bf16")
    assert [gradient.shape for gradient in gradients] == [(7, 5, 32)] * 3
    assert products.seen == [("aten.mm.dtype", torch.bfloat16, torch.bfloat16, torch.float32)] * 4
