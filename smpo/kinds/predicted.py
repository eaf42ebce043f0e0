"""What an objective sees, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ObjectiveOut", "Predicted"]


@dataclass(frozen=True)
class Predicted:
    """The four predictions of a micro-batch, and what they should have been.

    `target`, `policy`, `reference`: `[2B, C, H, W]`, winners first, all in the space in which errors are compared
    (epsilon, unless the family names another). Only `policy` carries gradients. `t`: `[2B]`.
    """

    target: Tensor
    policy: Tensor
    reference: Tensor
    t: Tensor
    abar: Tensor | None = None
    """`[2B]`: alpha-bar at `t`."""
    levels: int = 1
    """Timesteps a pair: rows run over sides, then levels, then pairs, `[2, levels, B]` flattened."""
    desirable: Tensor | None = None
    """`[2B]`, for single labelled images; None for pairs."""
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """Means of `Objective.batch_means` over the whole update."""

    def swapped(self) -> Predicted:
        """Loser first: what an objective sees when the pair is read the other way round."""

        def swap(x: Tensor) -> Tensor:
            return x.roll(len(x) // 2, 0)

        return replace(
            self,
            target=swap(self.target),
            policy=swap(self.policy),
            reference=swap(self.reference),
            t=swap(self.t),
            abar=None if self.abar is None else swap(self.abar),
            desirable=None if self.desirable is None else swap(self.desirable),
        )

    def gaps(self) -> tuple[Tensor, Tensor]:
        """`(winner, loser)`, each `[B]`: policy error minus reference error, without cancellation (method 1.2)."""
        from smpo.maths.losses import error_gap

        winner, loser = error_gap(self.target, self.policy, self.reference).chunk(2)
        return winner, loser

    def errors(self) -> tuple[Tensor, Tensor]:
        """`(winner, loser)`, each `[B]`: the policy's element-mean squared errors."""
        from smpo.maths.losses import denoising_error

        winner, loser = denoising_error(self.target, self.policy).chunk(2)
        return winner, loser


@dataclass(frozen=True)
class ObjectiveOut:
    """`loss` `[B]`, unreduced, so the engine owns averaging; `margin` `[B]`, positive when the policy moved towards
    the winner; `metrics`: more named `[B]` values worth a curve."""

    loss: Tensor
    margin: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
