"""Training in float64, for laws about the order of work: weights don't depend on how an update is cut up.

Such a law holds in real numbers. Float32 kernels round a sum by another amount for another batch size (and each
processor's kernels by amounts of their own), beta multiplies that by hundreds, and AdamW divides a gradient by its own
size, so that a weight whose gradient is near its rounding moves by up to lr in either direction: no bound that follows
from float32 is below lr. In float64 the same worst case is a billion times smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from smpo.engine.loop import Session
from smpo.kinds import Conditioning, PairBatch

ADAMW = "train.optimiser={use: adamw, eps: 1.0e-3}"
"""Divides no gradient by less, so that rounding stays rounding."""

LOGGED = {"rel": 16 * 2**-23, "abs": 16 * 2**-23}
"""For `pytest.approx` of metrics: each of 16 pairs' values (of order 1) is rounded to float32, and so is their sum."""

WEIGHTS = 1e-9
"""By how much weights of order 1 may differ after four updates: a gradient is a sum of fewer than 1e5 terms of order 1,
right to 2^-53 each, times beta 500, so right to 5e-9 in the worst case and to 2e-11 where rounding has both signs; an
update multiplies that by lr / eps, at most 10."""


def in_double(patch: pytest.MonkeyPatch) -> None:
    """Networks and batches of every training that is put together from here on are float64. No samples can be drawn
    from such a policy."""
    made = Session.__init__

    def make(self: Session, **parts: Any) -> None:
        made(self, **parts)
        for network in _networks(self.denoiser):
            network.double()
        batches = self.batches
        self.batches = lambda step: map(wide, batches(step))

    patch.setattr(Session, "__init__", make)


def wide(batch: PairBatch) -> PairBatch:
    """The same pairs in float64."""
    more = None if batch.unconditional is None else _wide(batch.unconditional)
    return replace(
        batch,
        mean=batch.mean.double(),
        std=batch.std.double(),
        conditioning=_wide(batch.conditioning),
        unconditional=more,
    )


def _wide(told: Conditioning) -> Conditioning:
    return Conditioning(
        {name: rows.double() if rows.is_floating_point() else rows for name, rows in told.tensors.items()}
    )


def _networks(denoiser: Any) -> Iterator[nn.Module]:
    yield denoiser.network
    reference = denoiser.networks.reference if hasattr(denoiser, "networks") else denoiser._reference
    if reference is not None:
        yield reference
