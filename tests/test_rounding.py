"""The imaginary processor of tests/rounding.py rounds as one might, and equal shapes alike."""

import torch

from tests.rounding import Otherwise


def test_equal_shapes_round_alike_and_others_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 700, generator=generator), torch.randn(700, 96, generator=generator)
    plain = a @ b
    with Otherwise() as processor:
        one, again, fewer = a @ b, a @ b, a[:8] @ b
    assert processor.rounded == 3
    assert torch.equal(one, again) and not torch.equal(one, plain)
    assert not torch.equal(one[:8], fewer)
    exact, bound = a.double() @ b.double(), 700 * 2.0**-24 * (a.abs() @ b.abs())
    assert ((one - exact).abs() < bound).all(), "no order of the terms is worse than this"
    assert (one - exact).abs().mean() > 2 * (plain - exact).abs().mean(), "blocked sums are better"


def test_gradients_are_rounded_too() -> None:
    x = torch.linspace(-1, 1, 32 * 48).reshape(4, 3, 8, 16)
    weight = torch.linspace(-1, 1, 8 * 27).reshape(8, 3, 3, 3).requires_grad_()

    def gradient() -> torch.Tensor:
        (found,) = torch.autograd.grad(torch.nn.functional.conv2d(x, weight).square().sum(), weight)
        return found

    plain = gradient()
    with Otherwise():
        other = gradient()
    assert not torch.equal(plain, other)
    torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
