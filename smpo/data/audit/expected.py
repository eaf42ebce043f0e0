"""What an audit knows of the run that the data is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Expected"]


@dataclass(frozen=True)
class Expected:
    """What the data is for. `tokens` counts a prompt's tokens, with those that begin and end it; without it, words
    are counted. `held_out`: names of prompt sets and what is in them. `sizes`: of buckets, (height, width), for a
    comparison where the spec isn't `bucketed`."""

    resolution: int | None = None
    tokens: Callable[[Sequence[str]], Sequence[int]] | None = None
    longest: int | None = None
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: Sequence[tuple[int, int]] = ()
    bucketed: bool = False
