"""The result of a reward-hacking check: proxies, their changes, the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

__all__ = ["ALARM", "Proxy", "RewardHackingReport"]


ALARM = 0.25
"""A gauge that has moved by more than this share, surely, is worth a word."""


@dataclass(frozen=True)
class Proxy:
    """One thing that no reward measures: its means, and the relative change with its 95 % interval over prompts."""

    name: str
    base: float
    policy: float
    change: float | None
    low: float | None
    high: float | None
    pictures: int

    @property
    def moved(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > ALARM or self.high < -ALARM)


@dataclass(frozen=True)
class RewardHackingReport:
    """Gauges, what the judges say side by side, and the verdict."""

    optimised: str | None
    """The judge that made the labels, if it was asked."""
    gains: Mapping[str, float | None]
    """Gain by judge, in standard deviations of the base's scores, so that judges can be compared."""
    gap: float | None
    """Gain of the optimised judge minus the mean of the others', in the same unit."""
    proxies: tuple[Proxy, ...]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        found = {f"goodhart/{gauge.name}": gauge.change for gauge in self.proxies if gauge.change is not None}
        if self.gap is not None:
            found["goodhart/gap"] = self.gap
        return {name: value for name, value in found.items() if math.isfinite(value)}
