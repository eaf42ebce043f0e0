"""Text to located tree. YAML 1.2 as data: no tags, no merge keys, no surprises.

ruamel supplies the event stream (a state machine, so depth is ours to bound); the tree is built here without
recursion. What YAML allows and a spec doesn't is refused with its position: duplicate keys (both places are
shown), tags, `<<`, keys that aren't words, several documents, infinities, and aliases that unfold beyond
reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from smpo.spec.problems import Note, Problem, SpecProblems
from smpo.spec.scalars import resolve_plain
from smpo.spec.source import Source, Span
from smpo.spec.tree import Entry, Node

__all__ = ["MAX_DEPTH", "MAX_NODES", "read"]

MAX_DEPTH = 40
MAX_NODES = 2_000
"""Values in a spec, counting what aliases unfold to (ten lines of them can stand for a billion)."""


def read(source: Source, *, start: int = 0) -> Node | None:
    """The document in a source, from the character `start` on; None when there is nothing but comments.

    Raises `SpecProblems` with everything that was found up to the first syntax error.
    """
    builder = _Builder(source, start)
    try:
        for event in _events(source.text[start:]):
            builder.take(event)
    except _Stop as stop:
        builder.problems.append(stop.problem)
    except Exception as error:
        # Scanner, parser and reader errors share no useful base; anything else that a parser does to hostile
        # text is, for the person who wrote it, a syntax error as well.
        builder.problems.append(_syntax(error, source, start))
    if builder.problems:
        raise SpecProblems(builder.problems)
    return builder.root


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML  # 60 ms that `smpo --help` need not spend

    yield from YAML(typ="safe", pure=True).parse(text)


class _Stop(Exception):
    """Reading on makes no sense."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass
class _Open:
    """A list or map whose end hasn't been read."""

    start: int
    anchor: str | None
    entries: dict[str, Entry] | None = None
    items: list[Node] = field(default_factory=list)
    key: tuple[str | None, Span] | None = None  # the key that waits for its value; None inside means refused
    size: int = 1
    height: int = 1


@dataclass
class _Builder:
    source: Source
    offset: int
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int, int]] = field(default_factory=dict)
    values: int = 0
    documents: int = 0

    def take(self, event: Any) -> None:
        span = self.span(event.start_mark.index, event.end_mark.index)
        match type(event).__name__:
            case "DocumentStartEvent":
                self.begin_document(event, span)
            case "ScalarEvent":
                self.refuse_tag(event, span)
                self.scalar(event, span)
            case "AliasEvent":
                self.alias(event, span)
            case "MappingStartEvent" | "SequenceStartEvent":
                self.refuse_tag(event, span)
                self.open(event, span)
            case "MappingEndEvent" | "SequenceEndEvent":
                self.close(span)
            case _:
                pass  # start and end of the stream, end of the document

    def span(self, start: int, end: int) -> Span:
        return Span(self.source, self.offset + start, self.offset + max(start, end))

    def complain(self, message: str, span: Span, **more: Any) -> None:
        self.problems.append(Problem(message, span=span, **more))

    def begin_document(self, event: Any, span: Span) -> None:
        self.documents += 1
        if self.documents > 1:
            raise _Stop(Problem("a file holds one spec; a second document starts here", span=span))
        if event.tags or (event.version and tuple(event.version) != (1, 2)):
            raise _Stop(Problem("a spec is YAML 1.2 without tags; take this directive out", span=self.span(0, 1)))

    def refuse_tag(self, event: Any, span: Span) -> None:
        if event.tag is None:
            return
        word = span.text.split()[0] if span.text.split() else "!"
        if event.anchor and word.startswith("&"):
            word = span.text.split()[1] if len(span.text.split()) > 1 else word
        at = span.start + max(span.text.find(word), 0)
        self.complain(
            "a spec has no tags: values are plain data",
            Span(self.source, at, at + len(word)),
            label="take it out",
        )

    def scalar(self, event: Any, span: Span) -> None:
        if event.anchor and span.text.startswith("&"):  # the mark of an anchored value starts at its anchor
            text = span.text
            at = len(text) - len(text[1 + len(event.anchor) :].lstrip())
            span = Span(self.source, min(span.start + at, span.end), span.end)
        value: Any = event.value
        if event.style is None and event.tag is None:
            try:
                value = resolve_plain(event.value)
            except ValueError as error:
                self.complain(str(error), span)
        elif any("\ud800" <= char <= "\udfff" for char in event.value):
            self.complain("half of a surrogate pair is not a character", span)
            value = ""
        if value is None and span.start == span.end and self.stack and self.stack[-1].key:
            span = self.stack[-1].key[1]  # an absent value is shown where its key is
        self.add(Node(span, value), event.anchor)

    def alias(self, event: Any, span: Span) -> None:
        if event.anchor not in self.anchors:
            if any(level.anchor == event.anchor for level in self.stack):
                raise _Stop(Problem(f"`*{event.anchor}` stands inside what it stands for", span=span))
            names = ", ".join(f"`{name}`" for name in self.anchors)
            known = f"anchors up to here: {names}" if names else "no anchor is set up to here"
            raise _Stop(Problem(f"no anchor is called `{event.anchor}`", span=span, label=known))
        node, size, height = self.anchors[event.anchor]
        self.add(node, None, size, height, written=span)

    def open(self, event: Any, span: Span) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise _Stop(Problem(f"this is nested more than {MAX_DEPTH} deep", span=span))
        level = _Open(span.start, event.anchor)
        if type(event).__name__ == "MappingStartEvent":
            level.entries = {}
        self.stack.append(level)

    def close(self, span: Span) -> None:
        level = self.stack.pop()
        whole = Span(self.source, level.start, max(span.end, level.start))
        node = Node(whole, level.entries if level.entries is not None else level.items)
        self.add(node, level.anchor, level.size, level.height)

    def add(
        self, node: Node, anchor: str | None, size: int = 1, height: int = 1, *, written: Span | None = None
    ) -> None:
        """Put a finished node where it belongs.

        `size` and `height` are what it unfolds to; `written` is the place of an alias.
        """
        where = written or node.span
        self.values += size if written else 1
        if self.values > MAX_NODES:
            raise _Stop(Problem(f"this unfolds to more than {MAX_NODES:,} values", span=where))
        if len(self.stack) + height > MAX_DEPTH + 1:
            raise _Stop(Problem(f"this unfolds to more than {MAX_DEPTH} levels", span=where))
        if anchor:
            self.anchors[anchor] = (node, size, height)
        if not self.stack:
            self.root = node
            return
        level = self.stack[-1]
        level.size += size
        level.height = max(level.height, height + 1)
        if level.entries is None:
            level.items.append(node)
        elif level.key is None:
            level.key = (self.key_of(node, written or node.span), written or node.span)
        else:
            name, key_span = level.key
            level.key = None
            if name is not None:
                self.enter(level.entries, name, key_span, node)

    def key_of(self, node: Node, span: Span) -> str | None:
        if isinstance(node.data, str):
            if node.data == "<<":
                self.complain("`<<` is not part of the language; `extends:` is the way to inherit from a file", span)
                return None
            return node.data
        if isinstance(node.data, list | dict):
            self.complain("a key is a word, not a list or a map", span)
        elif node.data is None:
            self.complain("a key is missing here", span)
        else:
            kind = "truth value" if isinstance(node.data, bool) else "number"
            self.complain(f"a key is a word; `{span.text}` is a {kind}", span, label=f'write `"{span.text}"`')
        return None

    def enter(self, entries: dict[str, Entry], name: str, key: Span, node: Node) -> None:
        if name in entries:
            first = entries[name].key
            self.complain(
                f"`{name}` was already given on line {first.line}",
                key,
                notes=(Note("the first one is here", first),),
            )
            return
        entries[name] = Entry(key, node)


# ---------------------------------------------------------------------------------------------- syntax errors

_WORDS = (
    ("found character '\\t'", "a tab is used for indentation; YAML takes spaces only"),
    ("found character '@'", "a value can't start with `@`; put it in quotes"),
    ("found character '`'", "a value can't start with a backtick; put it in quotes"),
    ("found character '%'", "a value can't start with `%`; put it in quotes"),
    ("mapping values are not allowed", "a second `:` on one line; put the value in quotes, or in braces"),
    ("could not find expected ':'", "a key without its `:`"),
    ("found unexpected end of stream", "a quotation mark is opened and never closed"),
    ("expected ',' or ']'", "a `[` is opened and not closed, or a comma is missing"),
    ("expected ',' or '}'", "a `{` is opened and not closed, or a comma is missing"),
    ("expected <block end>", "this doesn't line up with the lines above it"),
    ("special characters are not allowed", "a control character that YAML does not allow"),
    (
        "unknown escape character",
        "an escape that YAML does not know; single quotes take backslashes as they are",
    ),
)


_GLUED = re.compile(r"\s*(?:- )?([A-Za-z_][\w.-]*:)[^\s:/'\"][^:]*")


def _syntax(error: Exception, source: Source, start: int) -> Problem:
    mark = getattr(error, "problem_mark", None)
    index = mark.index if mark is not None else getattr(error, "position", 0)
    raw = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be read")
    message = next((ours for theirs, ours in _WORDS if theirs in raw), f"not YAML: {raw}")
    at = min(start + (index if isinstance(index, int) else 0), len(source.text))
    glued = _glued(source.text, at) if "mapping values" in raw else None
    if glued is not None:
        return Problem("after a `:` comes a space", span=Span(source, *glued))
    notes: tuple[Note, ...] = ()
    opened = getattr(error, "context_mark", None)
    if opened is not None and "end of stream" in raw:
        at = start + opened.index  # the quotation mark is the mistake, not the end of the file
    elif opened is not None and start + opened.index < at and "<block end>" not in raw:
        here = start + opened.index
        notes = (Note("it began here", Span(source, here, here + 1)),)
    return Problem(message, span=Span(source, at, min(at + 1, len(source.text))), notes=notes)


def _glued(text: str, at: int) -> tuple[int, int] | None:
    """Where a line above ends its key with a colon and no space (`steps:5`): YAML then takes it and what follows for
    one word, and complains about the next colon."""
    lines = text[:at].split("\n")
    start = at - len(lines[-1])
    for line in reversed(lines[:-1]):
        start -= len(line) + 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _GLUED.fullmatch(line)
        return (start + found.start(1), start + found.end(1)) if found else None
    return None
