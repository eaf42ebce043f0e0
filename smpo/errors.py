"""Errors of smpo. Imports no other module of smpo, so that every module may import it.

`exit_code` is what the command line ends with: 1 failed while running, 2 the spec is wrong, 3 not possible on
this machine, 143 terminated (130 is a person's Ctrl-C). Messages are one sentence in the user's words; `help` is one
thing to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["MachineError", "RunError", "SmpoError", "SpecError", "SpecErrors", "Terminated", "readable"]


class SmpoError(Exception):
    """Base of everything that is raised on purpose and shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help


class RunError(SmpoError):
    """A run failed after it had begun."""


class MachineError(SmpoError):
    """A sound request that is not possible here: no device, no weights, no package, no network."""

    exit_code = 3


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it. Not an error, and no `Exception`, like Ctrl-C."""

    exit_code = 143
    """128 + 15, as shells say it."""


class SpecError(SmpoError, ValueError):
    """A rule between settings is broken, at the dotted `path`.

    Raise it inside pydantic validators (it is a `ValueError`, so pydantic collects it with its own). Paths
    are relative to the model whose validator raises: `SpecError("steps", ...)` in a component is about that
    component's `steps`, `SpecError("train.steps", ...)` in the top-level model is about `train.steps`. An
    empty path is the model itself. `related` names other places that should be shown as notes.
    """

    exit_code = 2

    def __init__(self, path: str, message: str, *, related: Iterable[str] = (), help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.path = path
        self.related = tuple(related)


class SpecErrors(SmpoError, ValueError):
    """Several broken rules at once, from one validator."""

    exit_code = 2

    def __init__(self, errors: Sequence[SpecError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = tuple(errors)


@contextmanager
def readable(
    what: str,
    place: object,
    help: str = "is the file whole? smpo loads safetensors only; a folder with .bin files must be saved again",
) -> Iterator[None]:
    """Round libraries that read an untrusted file. Every error of theirs becomes `MachineError`.

    They expect files that they wrote themselves. A file that is torn, altered or made to hurt fails wherever the first
    wrong value is used, as any exception; all of them mean that it can't be read. Memory that runs out is not a fault
    of the file and passes through.
    """
    try:
        yield
    except (SmpoError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise MachineError(
            f"{what} in {place} can't be read: {(str(error).strip().splitlines() or [type(error).__name__])[0][:300]}",
            help=help,
        ) from error
