"""Where the checkout lies, and how a test's subprocess finds it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "python_path"]

ROOT = Path(__file__).parents[1]


def python_path(*first: object) -> str:
    """`PYTHONPATH` of a subprocess: `first`, the checkout, then the caller's own, which may hold torch itself."""
    caller = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, first), str(ROOT), *([caller] if caller else [])])
