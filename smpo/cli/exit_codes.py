"""Between smpo and the shell: standard streams that are closed, full or without Unicode, and exit codes.

Imports nothing heavy: every command passes here, `--help` too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["TRACEBACK", "ignore_broken_pipe", "open_streams", "quiet_libraries", "run_with_exit_code"]

TRACEBACK = "SMPO_TRACEBACK"
"""Environment variable: set it to see where an error of the system came from."""


_LONGEST = 300
"""Characters of a path in a message."""
_MEMORY = (
    "smaller batches: `--set runtime.encode_batch=1` for scoring, encoding and sampling, `--set runtime.micro_batch=1` "
    "for training; what was finished is kept, and `--resume` goes on"
)
_DATABASE = (
    "is its disk full, its folder read-only, or another process writing? `smpo cache verify` looks at caches, "
    f"`smpo doctor` at the tracking store; {TRACEBACK}=1 shows where this came from"
)


def open_streams() -> None:
    """Make standard streams that anything can be written to.

    A closed stream becomes the null device at its own number: the next file that is opened would get that number, and
    output of libraries would end up in it. A stream that can't show a character shows `?` instead of failing.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # replaced streams, as in tests
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Inside the block, writing to standard output and standard error never fails.

    A command that only prints may end when its output can't be written. Training must go on: its results are in the
    run's folder. The first write that fails makes the stream a null device for good.
    """
    before = sys.stdout, sys.stderr
    sys.stderr = _SafeStream(sys.stderr, None)
    sys.stdout = _SafeStream(sys.stdout, sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


class _SafeStream:
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


def quiet_libraries() -> None:
    """Turn off progress bars and advice of libraries; smpo has its own."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Importing models imports bitsandbytes, which warns of kernels for 4 bits; smpo doesn't use them.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def run_with_exit_code(command: Callable[[], object]) -> None:
    """Run a command, and end the process as it should end.

    Errors of smpo are printed in words, and so are those of the system: a full disk, a missing right, a file in the
    way. Any other error is a bug and keeps its traceback.
    """
    from smpo.errors import SmpoError

    try:
        code = _exit_code(command)
        sys.stdout.flush()  # a failure to write is an error here, and not Python's message at exit
        sys.exit(code)
    except SmpoError as error:
        from smpo.cli.output import print_error

        with contextlib.suppress(OSError, ValueError):
            print_error(error)
        _leave(error.exit_code)
    except KeyboardInterrupt as stop:
        code = getattr(stop, "exit_code", 130)
        _say("\ninterrupted\n" if code == 130 else "terminated\n")
        _leave(code)
    except BrokenPipeError:  # `smpo ... | head`: the reader has seen enough
        _leave(0)
    except Exception as error:
        message, help = _explained(error)
        if not message:
            raise
        _say(f"error: {message}\nhelp: {help}\n")
        _leave(1)


def _explained(error: Exception) -> tuple[str, str]:
    """The message and advice for an error of the system; empty for a bug, and where a traceback is wanted."""
    if isinstance(error, UnicodeEncodeError):
        text = f"{error.object[error.start : error.end]!a}"
        message = f"{text} can't be written: the locale is {error.encoding}"
        return message, "a UTF-8 locale can: `export LC_ALL=C.UTF-8`, or PYTHONUTF8=1"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, for any device
        return "out of memory", _MEMORY
    if os.environ.get(TRACEBACK):
        return "", ""
    if isinstance(error, OSError):
        names = [os.fspath(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        where = " → ".join(_text(name) for name in names) or "the system refused"
        advice = f"{TRACEBACK}=1 shows where this came from"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = f"make room there; what was finished is kept, and a run goes on with `--resume`; {advice}"
        return f"{where}: {error.strerror or str(error) or type(error).__name__}", advice
    # By its name: a database is opened by few commands, and this module by all.
    if type(error).__module__.startswith("sqlite3"):
        return f"a database could not be used: {error}", _DATABASE
    return "", ""


def _exit_code(command: Callable[[], object]) -> int:
    """The exit code of Typer, which ends by `SystemExit`. Raises `Terminated` where Typer took it for an interrupt."""
    from smpo.errors import Terminated

    try:
        command()
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None:
            if isinstance(cause, Terminated):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _text(name: str | bytes) -> str:
    text = os.fsdecode(name).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)


def _leave(code: int) -> None:
    """End with this code, without Python's complaints about streams that can't be flushed."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(code)
