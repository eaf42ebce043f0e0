"""What the first update says where policy and reference don't compute the same thing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from smpo.components.inversions import NoInversion
from smpo.components.objectives import SmPO
from smpo.engine.loop import fit
from smpo.engine.monitoring.operators import first_difference, operators_of
from smpo.errors import RunError
from tests.engine.toys import toy_session


class Other(nn.Module):
    """`inner`, with something done to its output."""

    def __init__(self, inner: nn.Module, change: str) -> None:
        super().__init__()
        self.inner, self.change = inner, change
        self.weight = torch.full((1, 1, 1, 1), 1.5)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        output: Tensor = self.inner(x, t, c)
        if self.change == "convolution":
            return torch.nn.functional.conv2d(output, self.weight)
        return output * 1.5 if self.change == "product" else output


@pytest.mark.parametrize(
    ("change", "named", "way_out"),
    [
        ("product", "none in the policy and mul(float32[8,1,2,2] strides [4,4,2,1], 1.5) in the", "train.precision"),
        ("convolution", "convolution(float32[8,1,2,2]", "runtime.channels_last"),
        ("weights", "both run the same", "same weights"),
    ],
)  # fmt: skip
def test_the_operator_that_differs_first_is_named(change: str, named: str, way_out: str) -> None:
    session = toy_session(SmPO(beta=50.0), NoInversion(), micro=4)
    denoiser = session.denoiser
    denoiser.reference = Other(denoiser.reference, change)
    if change == "weights":
        with torch.no_grad():
            next(denoiser.reference.parameters()).mul_(1.5)
    with pytest.raises(RunError) as caught:
        next(iter(fit(session)))
    assert "policy and reference don't compute the same thing" in caught.value.message
    assert named in caught.value.message
    assert way_out in str(caught.value.help)


def test_nothing_is_traced_where_both_start_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smpo.engine.loop.unlike_operator", lambda *_: pytest.fail("traced"))
    next(iter(fit(toy_session(SmPO(beta=50.0), NoInversion()))))


def test_operators_are_listed_with_what_kernels_are_chosen_by() -> None:
    x, weight = torch.ones(2, 3).t(), torch.ones(2, 4, dtype=torch.float64)
    found = operators_of(lambda: torch.cat([x.double(), x.double()]) @ weight.view(2, 4))
    assert found == [
        "cat([float64[3,2] strides [1,3], float64[3,2] strides [1,3]])",
        "mm(float64[6,2] strides [2,1], float64[2,4] strides [4,1])",
    ]


def test_operators_of_an_adapter_are_no_difference_and_others_are() -> None:
    reference = ["a", "b", "c", "b"]
    assert first_difference(["a", "b", "x", "y", "c", "x", "b"], reference) is None
    assert first_difference(["a", "x", "c", "b"], reference) == ("x", "b")
    assert first_difference(["a", "b", "c"], reference) == ("none", "b")
    assert first_difference(["a", *["x"] * 100, "b", "c", "b"], reference) == ("x", "b")
    assert first_difference([*reference, *["x"] * 100], reference) == ("x", "none")
