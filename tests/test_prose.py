"""Docstrings, comments and pages have named subjects and the field's words.

A sentence's subject is a function, a class, a file or a person in a role; functions compute, return, raise, load and
log. Words that make a private dialect are listed here, and a room that has none of them keeps it so.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

WORDS = re.compile(
    r"\b(whoever|nobody|anybody|somebody|everybody|asks?|asked|asking|says|said|hears?|heard|remembers?|remembered"
    r"|tells|(?:is|are|was|were|be|been) told|hopes?|listens?|forgets?|forgot|mourns?|strangers?|doubts?)\b",
    re.IGNORECASE,
)
QUOTED = re.compile(r"```.*?```|`[^`\n]*`|\"[^\"\n]*\"|\[[^\]]*\]\([^)]*\)", re.DOTALL)
"""Code, quotations and links are left out."""

EXCEPTIONS: dict[str, str] = {
    "docs/reference/errors.md": "written from error messages; tests/cli/errors holds them",
}
"""File -> why it may have such words."""


def rooms() -> list[str]:
    package = ROOT / "smpo"
    found = {
        "/".join(file.relative_to(ROOT).parts[: 3 if file.parts[len(package.parts)] == "app" else 2])
        for file in package.rglob("*.py")
    }
    return sorted({*found, "docs", "README.md", "benchmarks", "tools", "experiments"})


def texts(file: Path) -> Iterator[str]:
    """Docstrings and comments of Python, all of a page, comments of YAML."""
    content = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield content
    elif file.suffix == ".yaml":
        yield "\n".join(line.partition("#")[2] for line in content.splitlines())
    else:
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield str(node.value.value)
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def dialect(room: str) -> list[str]:
    place = ROOT / room
    files = [place] if place.is_file() else sorted(f for end in ("py", "md", "yaml") for f in place.rglob(f"*.{end}"))
    return [
        f"{file.relative_to(ROOT)}: {match.group()} … {text[max(match.start() - 40, 0) : match.end() + 20]!r}"
        for file in files
        if str(file.relative_to(ROOT)) not in EXCEPTIONS
        for text in (QUOTED.sub("", one) for one in texts(file))
        for match in WORDS.finditer(text)
    ]


@pytest.mark.parametrize("room", rooms())
def test_a_room_has_the_words_of_the_field(room: str) -> None:
    assert not (found := dialect(room)), "\n".join(found)


def test_the_words_are_found() -> None:
    assert WORDS.findall("Nobody asks; the writer is told.") == ["Nobody", "asks", "is told"]
    assert not WORDS.findall(QUOTED.sub("", '`ask` and "it says" are quoted'))
