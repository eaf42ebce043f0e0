"""Plain data back to YAML, with a comment behind every leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smpo.spec.scalars import format_key, format_scalar

__all__ = ["emit"]


def emit(data: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """A YAML document that reads back as `data`.

    `comments` maps dotted leaf paths to what stands behind them.
    """
    lines = _map(data, "", "", comments or {})
    width = min(max((len(text) for text, comment in lines if comment), default=0), 72)
    return "".join(f"{text:<{width}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


Lines = list[tuple[str, str]]


def _map(data: Mapping[str, Any], indent: str, path: str, comments: Mapping[str, str]) -> Lines:
    lines: Lines = []
    for key, value in data.items():
        here = f"{path}.{key}" if path else str(key)
        lines += _entry(f"{indent}{format_key(str(key))}:", value, indent, here, comments)
    return lines


def _entry(head: str, value: Any, indent: str, path: str, comments: Mapping[str, str]) -> Lines:
    if isinstance(value, Mapping) and value:
        return [(head, ""), *_map(value, indent + "  ", path, comments)]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        lines: Lines = [(head, "")]
        for index, item in enumerate(value):
            lines += _item(item, indent + "  ", f"{path}.{index}", comments)
        return lines
    return [(f"{head} {_flow(value)}", _clean(comments.get(path, "")))]


def _item(item: Any, indent: str, path: str, comments: Mapping[str, str]) -> Lines:
    if not (isinstance(item, Mapping) and item):
        return [(f"{indent}- {_flow(item)}", _clean(comments.get(path, "")))]
    (first, comment), *rest = _map(item, indent + "  ", path, comments)
    return [(f"{indent}- {first[len(indent) + 2 :]}", comment), *rest]


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{format_key(str(key))}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(one) for one in value) + "]"
    return format_scalar(value)


def _clean(comment: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in comment)
