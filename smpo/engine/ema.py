"""An exponential moving average of the trained parameters, where `train.ema` is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smpo.engine.sharding import distribute_like

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """`average <- decay * average + (1 - decay) * parameter`, with the usual ramp min(decay, (1+k)/(10+k))."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        decay: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called after parameters were set to other values."""
        self.decay, self._changed = decay, changed
        self._live = dict(parameters)
        self.shadow = {name: p.detach().clone().float() for name, p in self._live.items()}

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._live.items():
            self.shadow[name].lerp_(parameter.detach().float(), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the block the model *is* its average (for sampling and saving)."""
        held = {name: p.detach().clone() for name, p in self._live.items()}
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(held)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        for name in self.shadow:
            self.shadow[name].copy_(distribute_like(self.shadow[name], shadow[name]))

    def _copy(self, source: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._live.items():
                parameter.copy_(source[name])
        self._changed()
