"""A resolved spec leaf by leaf: what `plan --full` lists, trackers log and `diff` compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["leaves"]


def leaves(data: Any, path: str = "") -> dict[str, Any]:
    """`{"train": {"steps": 3}}` -> `{"train.steps": 3}`.

    A list of plain values is one leaf; a list that holds maps is taken apart by index. Empty maps are leaves.
    """
    if isinstance(data, Mapping) and data:
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        pairs = [(str(index), value) for index, value in enumerate(data)]
    else:
        return {path: data}
    found: dict[str, Any] = {}
    for key, value in pairs:
        found |= leaves(value, f"{path}.{key}" if path else key)
    return found
