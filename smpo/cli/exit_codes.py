"""Between smpo and the shell: streams that are closed, full or speak no Unicode, and how a command ends.

Imports nothing heavy: every command passes here, `--help` too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable

__all__ = ["TRACEBACK", "open_streams", "quiet_libraries", "run_with_exit_code"]

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

    A closed one becomes the null device at its own number: the next file that is opened would get that number, and
    whatever a library prints would end up in it. One that can't show a character shows `?` instead of failing.
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

    What smpo raises on purpose is worded. So is what the system refuses: a full disk, a missing right, a file in the
    way. Anything else is a bug and keeps its traceback.
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
    except OSError as error:
        if os.environ.get(TRACEBACK):
            raise
        _say(f"error: {_worded(error)}\nhelp: {_advice(error)}\n")
        _leave(1)
    except UnicodeEncodeError as error:
        _say(
            f"error: {error.object[error.start : error.end]!a} can't be written: the locale is {error.encoding}\n"
            "help: a UTF-8 locale can: `export LC_ALL=C.UTF-8`, or PYTHONUTF8=1\n"
        )
        _leave(1)
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, for any device
            _say(f"error: out of memory\nhelp: {_MEMORY}\n")
            _leave(1)
        # By its name: a database is opened by few commands, and this module by all.
        if not type(error).__module__.startswith("sqlite3") or os.environ.get(TRACEBACK):
            raise
        _say(f"error: a database could not be used: {error}\nhelp: {_DATABASE}\n")
        _leave(1)


def _exit_code(command: Callable[[], object]) -> int:
    """What Typer ends with: it leaves by `SystemExit`, and takes every interrupt for a person's."""
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


def _worded(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    files = [os.fspath(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    if files:
        return f"{' → '.join(_text(name) for name in files)}: {reason}"
    return f"the system refused: {reason}"


def _advice(error: OSError) -> str:
    where = f"{TRACEBACK}=1 shows where this came from"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"make room there; what was finished is kept, and a run goes on with `--resume`; {where}"
    return where


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
