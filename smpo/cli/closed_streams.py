"""Training goes on when its output can't be written: a closed pipe, a terminal that is gone, a full disk.

A command that only answers may end when its answer can't be written (`smpo.cli.exit_codes`). One that trains for days
must not: its results are in the run's folder. The first write that fails makes the stream a null device for good.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["ignore_broken_pipe"]


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Inside the block, writing to standard output and standard error never fails."""
    before = sys.stdout, sys.stderr
    sys.stderr = _Patient(sys.stderr, None)
    sys.stdout = _Patient(sys.stdout, sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


class _Patient:
    """A text stream whose `write` never fails. After the first failure of the real stream it writes one line to
    `other`."""

    def __init__(self, stream: Any, other: Any) -> None:
        self._stream, self._other = stream, other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:
            self._mute(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._mute(error)

    def _mute(self, error: OSError | ValueError) -> None:
        """Everything from now on, and what waits in the stream's buffer, goes nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        # A closed pipe is no error (`| head`); other failures are reported on the other stream.
        if self._other is not None and getattr(error, "errno", errno.EPIPE) != errno.EPIPE:
            reason = getattr(error, "strerror", None) or str(error)
            self._other.write(f"warning: standard output can't be written ({reason}); the work goes on\n")
