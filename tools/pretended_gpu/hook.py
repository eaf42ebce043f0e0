"""Imported when Python starts, by the environment's pretended.pth: a program needs no line about the pretended GPU.

Before `torch` is imported the pretended libraries are loaded, afterwards cuDNN's operators are replaced (`operators`);
after modules of smpo that judge numbers, their verdicts are replaced (`bridges`; PRETENDED_BRIDGES=0: they stay).
Nothing is imported that the program doesn't import itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

BRIDGED = (
    "smpo.engine.loop",
    "smpo.engine.monitoring.metrics",
    "smpo.families.finite",
    "smpo.rewards.networks.clip_like",
    "smpo.families.unet",
)
"""The modules of `bridges.BRIDGES`, which imports torch and can't be read here; a test holds the two together."""


class _Watch(importlib.abc.MetaPathFinder):
    """Finds nothing itself: wraps the loading of the modules `names`, each once."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.names:
            return None
        self.names.discard(name)
        if name == "torch":
            import pretended  # noqa: F401 -- loads the libraries
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then(name, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _then(name: str, original: Callable[[Any], None]) -> Callable[[Any], None]:
    def exec_module(module: ModuleType) -> None:
        original(module)
        if name == "torch":
            from pretended.operators import install

            install()
        else:
            from pretended.bridges import bridge

            bridge(module)

    return exec_module


def install() -> None:
    """Watch the imports of this process."""
    bridged = BRIDGED if os.environ.get("PRETENDED_BRIDGES", "1") != "0" else ()
    sys.meta_path.insert(0, _Watch({"torch", *bridged}))
