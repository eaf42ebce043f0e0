"""Figures as text: as many digits as their intervals justify, `–` for a figure that doesn't exist."""

from __future__ import annotations

import math

__all__ = ["NONE", "decimals", "interval", "number", "p_value", "percent", "share"]

NONE = "–"


def decimals(value: float | None, low: float | None, high: float | None) -> int:
    """As many decimals as give an interval two figures: more would be noise, fewer would hide it."""
    width = abs(high - low) / 2 if low is not None and high is not None else 0.0
    width = width or abs(value or 0.0) or 1.0
    return max(0, min(8, 1 - math.floor(math.log10(width))))


def number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int | None = None) -> str:
    """`+0.12 [+0.05, +0.19]`, or `+0.12 [–]` without an interval. None for `digits` takes those of `decimals`."""
    if value is None:
        return NONE
    form = f"+.{decimals(value, low, high) if digits is None else digits}f"
    return f"{value:{form}} [" + (NONE if low is None or high is None else f"{low:{form}}, {high:{form}}") + "]"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def share(value: float | None, low: float | None, high: float | None, sign: str = " %") -> str:
    """`61.0 % [55.1, 66.4]`."""
    if value is None or low is None or high is None:
        return NONE
    return f"{percent(value)}{sign} [{percent(low)}, {percent(high)}]"


def p_value(p: float | None) -> str:
    return NONE if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"
