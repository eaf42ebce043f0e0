"""The plane in float64, for laws about the order of work: weights don't depend on how an update is cut up.

Such a law holds in real numbers. Float32 kernels round a sum by another amount for another batch size (and each
processor's kernels by amounts of their own), beta multiplies that by hundreds, and AdamW divides a gradient by its own
size, so that a weight whose gradient is near its rounding moves by up to lr in either direction: no bound that follows
from float32 is below lr. In float64 the same worst case is a billion times smaller.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from smpo.data.loader import PairLoader
from smpo.families.plane import PlaneDenoiser

ADAMW = "train.optimiser={use: adamw, eps: 1.0e-3}"
"""Divides no gradient by less, so that rounding stays rounding."""

LOGGED = {"rel": 16 * 2**-23, "abs": 16 * 2**-23}
"""For `pytest.approx` of metrics: each of 16 pairs' values (of order 1) is rounded to float32, and so is their sum."""

WEIGHTS = 1e-9
"""By how much weights of order 1 may differ: sums of 32 * 128 terms, right to 2^-53 each, times beta 500, so
gradients to 2e-10 in the worst case (terms of 1; theirs are smaller); an update multiplies by lr / eps = 0.1, and
there are four."""


def in_double(patch: pytest.MonkeyPatch) -> None:
    """Networks and latents of every plane that is loaded from here on are float64. Samples can't be drawn from it."""
    built, dealt, fixed = PlaneDenoiser.__init__, PairLoader.batches, PairLoader.fixed

    def build(self: PlaneDenoiser, policy: Any, **options: Any) -> None:
        built(self, policy.double(), **options)

    def predict(
        self: PlaneDenoiser,
        x: Tensor,
        t: Tensor,
        cond: Any,
        *,
        reference: bool = False,
        inverting: bool = False,
    ) -> Tensor:
        out: Tensor = self._network(reference)(x, t, cond.tensors["condition"])
        return out

    def wide(batches: Any) -> Any:
        for batch in batches:
            yield replace(batch, mean=batch.mean.double(), std=batch.std.double())

    patch.setattr(PlaneDenoiser, "__init__", build)
    patch.setattr(PlaneDenoiser, "predict", predict)
    patch.setattr(PairLoader, "batches", lambda *words, **more: wide(dealt(*words, **more)))
    patch.setattr(PairLoader, "fixed", lambda *words, **more: wide(fixed(*words, **more)))
