"""Output and arguments that all makers share: steps, seed, folder."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

__all__ = ["Progress", "arguments"]

_log = logging.getLogger("tools.make_shapes")


class Progress:
    """Log lines with the time since the start; say when the next snapshot is due."""

    def __init__(self, what: str, *, snapshot_minutes: float = 8.0) -> None:
        if not _log.handlers:
            _log.addHandler(logging.StreamHandler(sys.stdout))
            _log.setLevel(logging.INFO)
        self._what = what
        self._start = time.monotonic()
        self._every = 60.0 * snapshot_minutes
        self._saved = self._start

    def say(self, text: str) -> None:
        """One line: what, seconds since the start, text."""
        _log.info("%s %6.0fs %s", self._what, time.monotonic() - self._start, text)
        sys.stdout.flush()

    def snapshot_due(self) -> bool:
        """True once per interval."""
        due = time.monotonic() - self._saved >= self._every
        if due:
            self._saved = time.monotonic()
        return due


def arguments(description: str, *, steps: int, out: Path) -> argparse.ArgumentParser:
    """The options that all makers share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps, help="training steps (or pairs)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=out, help="folder to write")
    return parser
