"""The live objects of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.data.pairs.holdout import HeldOut
from smpo.data.stream.loader import PairLoader
from smpo.engine.loop import Session
from smpo.kinds import PairTable, Runtime, ScoreStats

if TYPE_CHECKING:
    from torch import Tensor, nn


__all__ = ["LiveRun", "trainable_parameters"]


@dataclass
class LiveRun:
    """A session and what was learnt while putting it together."""

    session: Session
    table: PairTable
    loader: PairLoader
    runtime: Runtime
    reward_key: str | None
    """The scorer that smoothed the labels."""
    stats: ScoreStats | None
    """Of the scores behind `p`."""
    p: Tensor
    """As known before the first update: of all pairs, or of those that are held out and that the first updates visit;
    of others NaN."""
    holdout: HeldOut
    parameters: dict[str, nn.Parameter]
    """What is trained, by name; of a sharded policy the parts that this process holds."""
    sharded: bool
    on_weights_changed: Callable[[], None]
    """To be called when parameters were set to other values than an update's."""


def trainable_parameters(policy: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name: everything, or the adapter alone."""
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}
