"""Passes without gradients in batches that fit, of one size if they are to be compiled.

A batch's size changes rounding alone, since rows don't depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.kinds import Conditioning, Denoiser, Predict
from smpo.maths.schedule import carried

__all__ = ["EACH", "ForwardBatches", "batched_predictors", "portioned"]


@dataclass(frozen=True)
class ForwardBatches:
    """`rows`: images in one pass, None for as many as there are. `even`: the last portion is filled up with repetitions
    of its first row, so that all have the same shape; their outputs are dropped."""

    rows: int | None = None
    even: bool = False


EACH = ForwardBatches()
"""Everything at once."""


def batched_predictors(
    denoiser: Denoiser, cond: Conditioning, empty: Conditioning | None, passes: ForwardBatches
) -> dict[str, Predict]:
    """Policy and reference without gradients, on any rows of the batch; the keyword arguments of `Predictors`."""

    def follow(reference: bool, about: Conditioning) -> Predict:
        def predict(x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor:
            with torch.no_grad():
                return denoiser.predict(x, t, about.take(rows), reference=reference, inverting=True)

        return portioned(predict, passes)

    found = {"policy": follow(False, cond), "reference": follow(True, cond)}
    if empty is not None:
        found |= {"policy_empty": follow(False, empty), "reference_empty": follow(True, empty)}
    return found


def portioned(predict: Callable[[Tensor, Tensor, Tensor], Tensor], passes: ForwardBatches) -> Predict:
    """`predict` on at most `passes.rows` rows at once."""

    def asked(x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor:
        t, rows = carried(t, x.device), carried(rows, x.device)
        size = passes.rows or len(x)
        if len(x) <= size and not passes.even:
            return predict(x, t, rows)
        parts = []
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            lacking = size - len(x[part]) if passes.even else 0
            some = [_filled(v[part], lacking) for v in (x, t, rows)]
            parts.append(predict(some[0], some[1], some[2])[: size - lacking])
        return torch.cat(parts)

    return asked


def _filled(x: Tensor, lacking: int) -> Tensor:
    return x if lacking == 0 else torch.cat([x, x[:1].expand(lacking, *x.shape[1:])])
