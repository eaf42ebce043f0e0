"""Plain words and numbers of YAML 1.2's core schema, in both directions.

ruamel's resolver still turns dates into objects and `1_000` into a number; the core schema does neither, and
twenty lines of our own can be read. `1e-5` is a float, `off` is a word, `12:30` is a word.
"""

from __future__ import annotations

import json
import math
import re

__all__ = ["Scalar", "format_key", "format_scalar", "is_number", "number_spelled", "one_number", "resolve_plain"]

Scalar = str | int | float | bool | None

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {**dict.fromkeys(("true", "True", "TRUE"), True), **dict.fromkeys(("false", "False", "FALSE"), False)}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./@+-]*")
_MAX_DIGITS = 400  # no double needs more, and int() of a megabyte of digits takes minutes


def resolve_plain(text: str) -> Scalar:
    """The value of an unquoted scalar.

    Raises `ValueError`, with a sentence, for what a spec can't hold: infinities, not-a-number, and numbers
    that overflow a double or have hundreds of digits. They have no place in JSON, hence none in an identity.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _SPECIAL.fullmatch(text):
        raise ValueError(f"`{text}` is not a number that a spec can hold")
    if _INT.fullmatch(text) or _BASED.fullmatch(text) or _FLOAT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"this number has {len(text):,} digits")
        if _INT.fullmatch(text):
            return int(text)  # base 10, so that 007 is 7
        if _BASED.fullmatch(text):
            return int(text, 0)
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"`{text}` is too large for a number")
        return value
    return text


def is_number(text: str, *, whole: bool = False) -> bool:
    """Whether an unquoted scalar spelt so would be a number, or even a whole one."""
    return bool(_INT.fullmatch(text) or (not whole and _FLOAT.fullmatch(text)))


def number_spelled(text: str) -> str | None:
    """What someone who wrote `1_000` or `1,000` meant, or None."""
    bare = text.replace("_", "").replace(",", "")
    return bare if bare != text and (_INT.fullmatch(bare) or _FLOAT.fullmatch(bare)) else None


def one_number(value: float) -> int | float:
    """One object a number: 5.0 is 5, and negative zero is zero. What isn't finite is left as it is."""
    return int(value) if value.is_integer() else value


def format_scalar(value: Scalar) -> str:
    """YAML that reads back as exactly this value, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number that a spec can hold")
        return repr(value)
    return format_key(value)


def format_key(text: str) -> str:
    """A string, bare where that can't be misread, else double-quoted."""
    if _BARE.fullmatch(text) and text not in _NULL and text not in _BOOL:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # JSON leaves some characters as they are that YAML refuses or folds (NEL, line separators, byte order
    # mark).
    return "".join(char if char.isprintable() else _escaped(char) for char in quoted)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
