"""The points of a grid, in an order that needs no list of them: each is tried once, and again only after it failed.

Optuna's `GridSampler` takes a failed point for visited, draws finished ones again instead, and lists the whole product
before the first trial.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smpo.sweep.trials import Trial

__all__ = ["GridPoints"]


class GridPoints:
    """The product of each parameter's values, shuffled: point k is number (a k + b) mod N, with a prime to N."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = dict(values)
        self.size = math.prod(map(len, self._values.values()))
        step = max(1, round(0.618 * self.size))
        self._step = next(a for a in range(step, step + self.size + 1) if math.gcd(a, self.size) == 1)
        self._retried: set[tuple[Any, ...]] = set()

    def point(self, position: int) -> dict[str, Any]:
        """The settings at this place of the order."""
        number = (self._step * position + self.size // 3) % self.size
        chosen = {}
        for name, values in self._values.items():
            number, index = divmod(number, len(values))
            chosen[name] = values[index]
        return chosen

    def following(self, trials: Sequence[Trial], *, peek: bool = False) -> dict[str, Any] | None:
        """The next point: the first that no trial has tried; then each that only failed, once in this process. None:
        there is none. `peek`: don't count it as tried."""
        settled, failures = set(), Counter[tuple[Any, ...]]()
        for trial in trials:
            key = self._key(trial.params)
            if trial.finished or trial.state in ("running", "waiting"):
                settled.add(key)
            elif not trial.given_back:
                failures[key] += 1
        tried = settled | failures.keys()
        for position in range(min(self.size, len(tried) + 1)):
            point = self.point(position)
            if self._key(point) not in tried:
                return point
        for key, _ in sorted(failures.items(), key=lambda entry: entry[1]):
            if key not in settled and key not in self._retried:
                if not peek:
                    self._retried.add(key)
                return dict(zip(self._values, key, strict=True))
        return None

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params.get(name) for name in self._values)
