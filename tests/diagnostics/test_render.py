"""Frames, clipping and the other shapes of a problem."""

import json
from pathlib import Path

import pytest

from smpo.diagnostics.render import as_data, as_json, github, render
from smpo.errors import MachineError, RunError, SmpoError, SpecError
from smpo.spec.problems import Note, Problem, SpecProblems
from smpo.spec.source import Source, Span


def problem(text: str, marked: str, **more: object) -> Problem:
    source = Source("dir/f.yaml", text, Path("dir/f.yaml"))
    start = text.index(marked)
    return Problem("something is wrong", Span(source, start, start + len(marked)), "a.b", **more)  # type: ignore[arg-type]


def test_a_frame_with_everything() -> None:
    first = problem("a:\n  b: 3  # why\n", "3  # why", label="write `4`", help="do it")
    note = Note("it clashes with this", problem("x: 'a # b'  # c\n", "'a # b'  # c").span, "x")
    shown = render([Problem(**{**first.__dict__, "notes": (note,)})])
    assert (
        shown
        == """\
error: something is wrong
  --> dir/f.yaml:2:6  (a.b)
     |
   2 |   b: 3  # why
     |      ^ write `4`
note: it clashes with this
  --> dir/f.yaml:1:4  (x)
     |
   1 | x: 'a # b'  # c
     |    ^^^^^^^
help: do it

1 problem; nothing was run.
"""
    )


def test_spans_over_lines_are_marked_on_the_first() -> None:
    assert "   1 | a: [1,\n     |    ^^^\n" in render([problem("a: [1,\n  2]\n", "[1,\n  2]")])


@pytest.mark.parametrize("before", [0, 40, 200])
@pytest.mark.parametrize("length", [1, 30, 300])
@pytest.mark.parametrize("after", [0, 40, 200])
def test_long_lines_are_clipped_round_the_caret(before: int, length: int, after: int) -> None:
    lines = render([problem("b" * before + "X" * length + "a" * after, "X" * length)]).splitlines()
    text, caret = lines[3], lines[4]
    assert len(text) <= 125
    assert text[caret.index("^")] == "X"
    assert text[caret.rindex("^")] in "X…"


def test_wide_letters_and_tabs_keep_the_caret_in_place() -> None:
    lines = render([problem("台所\t: X", "X")]).splitlines()
    assert lines[4].index("^") - lines[4].index("|") == 2 + 4 + 4 + 2


def test_nothing_can_move_the_cursor() -> None:
    sly = problem("a: \x1b[2J\u202e!\n", "\x1b[2J", label="\x1b[0m", help="\r")
    assert all(char.isprintable() or char == "\n" for char in render([sly]))


def test_warnings_are_not_counted() -> None:
    assert render([Problem("look", level="warning")]) == "warning: look\n"
    assert render([]) == ""
    assert render([Problem("no")], closing="").endswith("error: no\n")


def test_a_flood_of_problems_is_cut() -> None:
    shown = render([Problem(f"no {number}") for number in range(1234)])
    assert "... and 1,184 more\n\n1234 problems" in shown


def test_json() -> None:
    data = json.loads(as_json([problem("a: 1\n", "1", label="hm")]))
    assert data == {
        "problems": [
            {
                "level": "error",
                "message": "something is wrong",
                "path": "a.b",
                "origin": "dir/f.yaml",
                "line": 1,
                "column": 4,
                "label": "hm",
            }
        ]
    }
    assert as_data(Problem("only words")) == {"level": "error", "message": "only words"}


def test_github() -> None:
    assert github([problem("a: 1\n", "1", label="50%", help="x\ny")]) == (
        "::error file=dir/f.yaml,line=1,col=4::something is wrong. 50%25. x%0Ay\n"
    )
    on_the_line = Problem("no", Span(Source("--set #1", "a=1"), 0, 1), level="warning")
    assert github([on_the_line]) == "::warning::no\n"


def test_exit_codes() -> None:
    errors: list[SmpoError] = [
        RunError("a"),
        SpecProblems([Problem("b")]),
        SpecError("p", "c"),
        MachineError("d", help="e"),
    ]
    assert [error.exit_code for error in errors] == [1, 2, 2, 3]
    assert [str(error) for error in errors] == ["a", "b", "c", "d"]
