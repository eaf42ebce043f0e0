"""Settings that smpo no longer has, in the files of runs that still name them.

A run's `resolved.yaml` holds every setting with its value, so a setting that is deleted would end `smpo verify`,
`smpo rerun` and `smpo eval` of all earlier runs in an error. Where the run had the value at which the setting did
nothing, its entry is left out while reading; with any other value it is an unknown setting like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["REMOVED_COMPONENTS", "without"]

REMOVED_COMPONENTS: Mapping[tuple[str, str], str] = dict.fromkeys(
    (("inversion", "stale"), ("inversion", "renoise-stale")),
    "it was removed: write `renoise`, with fewer `steps` for a cheaper inversion",
)
"""Kind and name of a component or card -> what to write instead."""


def without(given: Any, removed: Mapping[str, Any]) -> Any:
    """`given` less the entries of `removed`, names with the value at which each did nothing. For a model's validator
    of mode `before`; other input than a mapping is returned as it is."""
    if not isinstance(given, Mapping):
        return given
    return {
        name: value
        for name, value in given.items()
        if not (name in removed and type(value) is type(removed[name]) and value == removed[name])
    }
