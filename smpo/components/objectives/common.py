"""Functions that objectives share: texts of warnings, and a pair seen from the image that p prefers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from smpo.kinds import Inversion, Objective, Predicted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Logistic", "inverts", "of_the_preferred"]


class Logistic(Objective):
    """Losses that are ln 2 while policy and reference agree."""

    @property
    def at_reference(self) -> float | None:
        return math.log(2)


def of_the_preferred(
    predicted: Predicted, p: Tensor, value: Callable[[Predicted], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """`value` of the pair read with the image that p prefers first, each result `[B]`; ties are read both ways."""
    side = 0.5 * (1 + (2 * p - 1).sign())
    forth, back = value(predicted), value(predicted.swapped())
    first, second = (side * a + (1 - side) * b for a, b in zip(forth, back, strict=True))
    return first, second


def inverts(inversion: Inversion) -> bool:
    """Whether noise comes from a network's inversion and not from a random generator."""
    return inversion.max_steps() > 0
