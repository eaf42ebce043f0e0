"""What can be the matter with a file that somebody else wrote: accidents and lies, for fuzzing."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

__all__ = ["damaged_json", "damaged_tensors"]

LIES: tuple[Any, ...] = (
    None, -1, 0, 10**6, 10**12, 2**63, 0.5, 1e308, "x", "../../etc/passwd", "__import__('os').system('touch sprung')",
    [], {}, ["a"], {"a": 1}, [1] * 50, True,
)  # fmt: skip
NOT_JSON = (b"", b"{", b"[]", b"5", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a": 1}')


def damaged_json(content: bytes, lot: random.Random) -> bytes:
    """One value of a JSON file replaced or gone; or no JSON at all; or half of it."""
    if lot.random() < 0.2:
        return lot.choice([*NOT_JSON, content[: len(content) // 2]])
    try:
        data = json.loads(content)
    except ValueError:
        return content[: len(content) // 2]
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        inside = list(part.items())[:200] if isinstance(part, dict) else list(enumerate(part))[:20]
        for key, value in inside:
            places.append((part, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(data)
    if not places:
        return b"[]"
    part, key = lot.choice(places)
    if isinstance(part, dict) and lot.random() < 0.15:
        del part[key]
    else:
        part[key] = lot.choice(LIES)
    return json.dumps(data).encode()


def damaged_tensors(content: bytes, lot: random.Random) -> bytes:
    """A safetensors file that is cut off, or whose header lies about lengths, offsets, types, shapes and names."""
    (length,) = struct.unpack("<Q", content[:8])
    head, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in head if name != "__metadata__"]
    one = lot.choice(names)

    def packed(header: bytes | dict[str, Any], data: bytes = body) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    match lot.randrange(15):
        case 0:
            return content[: lot.randrange(len(content))]
        case 1:
            return struct.pack("<Q", lot.choice([2 * len(content), 2**63 - 1, 2**64 - 1])) + content[8:]
        case 2:
            return packed(b"{" * 100)
        case 3:
            return packed(b'{"a":' * 20_000 + b"1" + b"}" * 20_000)
        case 4:
            head[one]["data_offsets"] = [0, 2**60]
        case 5:
            head[one]["dtype"] = "F999"
        case 6:
            head[one]["shape"] = [2**40, 2**40]
        case 7:
            head[one]["data_offsets"] = head[lot.choice(names)]["data_offsets"]
        case 8:
            head.pop(one)
        case 9:
            return b""
        case 10:
            return packed(head, b"\xff" * len(body))
        case 11:
            head["__metadata__"] = {"x": "y" * 20_000_000}
        case 12:
            lies = [
                "[]",
                '{"shape":5}',
                '{"shape":{"width":1e9}}',
                '{"shape":{"layers":100000}}',
                "no",
                '{"shape":{}}',
            ]
            head["__metadata__"] = {"plane": lot.choice(lies)}
        case 13:
            head = {name if name == "__metadata__" else f"x{name}": facts for name, facts in head.items()}
        case _:
            spoilt = bytearray(content)
            for _ in range(5):
                spoilt[lot.randrange(len(spoilt))] ^= 1 << lot.randrange(8)
            return bytes(spoilt)
    return packed(head)
