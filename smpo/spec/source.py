"""Where text was written: a source, and spans of it.

Everything that is read, a file or the text behind `--set`, becomes a `Source`. A `Span` is a stretch of one;
lines and columns count from 1 and are computed on first use.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from os.path import normpath
from pathlib import Path
from re import compile as regex

from smpo.spec.problems import Problem, SpecProblems, nearest
from smpo.spec.shipped import shipped_specs

__all__ = ["MAX_BYTES", "Source", "Span", "display_path", "open_source"]

MAX_BYTES = 256 * 1024
"""A spec is a page or two.

Pure-Python YAML reads about 100 KiB a second, so a larger file is surely a mistake.
"""

_BREAK = regex(r"\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class Source:
    """One text that settings came from. `name` is what people read; `path` is None for the command line."""

    name: str
    text: str
    path: Path | None = None

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _BREAK.finditer(self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both from 1. Columns count characters, not bytes."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, without its end; empty past the end of the file."""
        if not 1 <= number <= len(self._starts):
            return ""
        start = self._starts[number - 1]
        stop = self._starts[number] if number < len(self._starts) else len(self.text)
        return self.text[start:stop].rstrip("\r\n")

    def whole(self) -> Span:
        """The source as such, for problems that have no better place."""
        return Span(self, 0, 0)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a source. An empty span is a point."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        """What is written there."""
        return self.source.text[self.start : self.end]

    @property
    def origin(self) -> str:
        """`experiments/x.yaml:7`; or the bare name where lines say nothing (`--set #1`, `default`)."""
        return self.source.name if self.source.path is None else f"{self.source.name}:{self.line}"


def display_path(path: Path) -> str:
    """As people would type it: relative to the working directory when inside it, else absolute."""
    absolute = Path(normpath(path.absolute()))  # without `..`, but with links as they are
    try:
        return absolute.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return absolute.as_posix()


def open_source(path: Path, *, asked_for: Span | None = None) -> Source:
    """Read a UTF-8 file.

    Raises `SpecProblems`, located at `asked_for` (the line that names the file), if any.
    """

    def refuse(message: str, help: str | None = None) -> SpecProblems:
        return SpecProblems([Problem(message, span=asked_for, help=help)])

    name = display_path(path)
    try:
        if path.is_dir():
            raise refuse(f"`{name}` is a folder, not a spec")
        with path.open("rb") as file:  # a device has no size; one byte too many shows it as well
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise refuse(f"`{name}` is too large: a spec has at most {MAX_BYTES:,} bytes")
    except FileNotFoundError:
        raise refuse(f"there is no file `{name}`", _near_file(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise refuse(f"can't read {name!r}: {reason}") from None
    try:
        return Source(name, raw.decode("utf-8-sig"), path.absolute())
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise refuse(f"`{name}` is not UTF-8 text: byte {raw[error.start]:#04x} on line {line}") from None


def _near_file(path: Path) -> str | None:
    try:
        there = [entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"}]
    except (OSError, ValueError):
        return f"there is no folder `{display_path(path.parent)}`"
    close = nearest(path.name, there)
    if close:
        return f"did you mean `{display_path(path.parent / close)}`?"
    close = nearest(path.stem, list(shipped_specs()))
    return f"did you mean `{close}`, which comes with smpo?" if close else None
