"""Compare two resolved specs leaf by leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Absent", "Change", "diff"]


class Absent:
    """Stands for a setting that one side doesn't have. Never equal to a value, least of all to null."""

    def __repr__(self) -> str:
        return "absent"


@dataclass(frozen=True)
class Change:
    """One leaf that differs."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r} -> {self.after!r}"


ABSENT = Absent()


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two sets of leaves, by path; empty when nothing does.

    `1` and `1.0` are the same number.
    """
    changes = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ABSENT), after.get(path, ABSENT)
        if isinstance(old, bool) is not isinstance(new, bool) or old != new:
            changes.append(Change(path, old, new))
    return changes
