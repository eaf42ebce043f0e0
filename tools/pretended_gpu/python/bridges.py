"""Where smpo judges a number and would stop: kernels don't run, so every number read from the device is garbage.

Only verdicts are replaced; every operator, copy and wait of smpo still happens. Each bridge names the module and the
attributes that it replaces; where one has moved, `bridge` raises, and so does tests/pretended/test_bridges.py.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["BRIDGES", "Bridge", "bridge", "missing"]


def bridge(module: ModuleType) -> None:
    """Replace what the bridge of this module names. Raises `RuntimeError` where an attribute has moved."""
    lost = list(missing(module))
    if lost:
        raise RuntimeError(
            f"pretended GPU: {module.__name__} has no {', '.join(lost)} any more; change its bridge in "
            "tools/pretended_gpu/python/bridges.py"
        )
    BRIDGES[module.__name__].apply(module)


def missing(module: ModuleType) -> Iterator[str]:
    """Attributes, dotted, that the module's bridge replaces and the module lacks."""
    for path in BRIDGES[module.__name__].attributes:
        try:
            functools.reduce(getattr, path.split("."), module)
        except AttributeError:
            yield path


def _loop(module: Any) -> None:
    """The first loss needn't be ln 2."""
    module.assert_starts_at_reference = lambda *given, **named: None


def _metrics(module: Any) -> None:
    """Losses and norms needn't be finite; zeros are reported."""
    original = module.Meter.settle

    def settle(self: Any, *given: Any, **named: Any) -> dict[str, float]:
        names, passes = sorted(self._rows), sum(p * n for p, n in self._passes)
        with contextlib.suppress(module.NonFiniteLoss, ZeroDivisionError):
            original(self, *given, **named)
        return {**self._named(dict.fromkeys(names, 0.0), float(self.pairs), float(passes)), "grad_norm": 1.0}

    module.Meter.settle = settle
    module.Meter.suspects = lambda self: []


def _clip(module: Any) -> None:
    """Scores are finite, and differ."""
    original = module.ClipScorer._all

    def everything(self: Any, *given: Any, **named: Any) -> Tensor:
        found = torch.nan_to_num(original(self, *given, **named), nan=0.1, posinf=0.1, neginf=0.1)
        return found + 0.001 * torch.arange(found.numel()).reshape(found.shape)

    module.ClipScorer._all = everything


def _unet(module: Any) -> None:
    """Latents and embeddings are finite."""

    def finite(original: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        @functools.wraps(original)
        def encode(self: Any, *given: Any, **named: Any) -> dict[str, Tensor]:
            return {
                name: torch.nan_to_num(one.float(), nan=0.1, posinf=1, neginf=-1)
                for name, one in original(self, *given, **named).items()
            }

        return encode

    module.UNetDenoiser.encode_pictures = finite(module.UNetDenoiser.encode_pictures)
    module.UNetDenoiser.encode_prompts = finite(module.UNetDenoiser.encode_prompts)


def _finite(module: Any) -> None:
    """Pictures needn't be finite; they are looked at all the same."""
    original = module.require_finite

    def require_finite(drawn: Tensor) -> None:
        with contextlib.suppress(module.RunError):
            original(drawn)

    module.require_finite = require_finite


class Bridge(NamedTuple):
    apply: Callable[[Any], None]
    attributes: tuple[str, ...]


BRIDGES = {
    "smpo.engine.loop": Bridge(_loop, ("assert_starts_at_reference",)),
    "smpo.engine.monitoring.metrics": Bridge(
        _metrics, ("Meter.settle", "Meter.suspects", "Meter._named", "NonFiniteLoss")
    ),
    "smpo.families.finite": Bridge(_finite, ("require_finite", "RunError")),
    "smpo.rewards.networks.clip_like": Bridge(_clip, ("ClipScorer._all",)),
    "smpo.families.unet": Bridge(_unet, ("UNetDenoiser.encode_pictures", "UNetDenoiser.encode_prompts")),
}
"""By module. `hook.BRIDGED` lists the same names."""
