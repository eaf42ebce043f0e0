"""Counters of the pretended GPU: `reset()`, then `counts()`. ../README.md describes the device.

Importing this package loads the pretended libraries. Every Python of the environment imports it before torch (`hook`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path

__all__ = ["EXTRA", "LIBRARY", "counts", "reset", "waits"]

_HERE = Path(__file__).parent
_SIZE = 1 << 18


def _load() -> ctypes.CDLL:
    """Load the device, then an empty library for each name that NVIDIA's libraries have.

    All symbols become global, so torch, bitsandbytes and `dlopen` by name find them before any real library.
    """
    device = ctypes.CDLL(str(_HERE / "libpretended.so"), mode=ctypes.RTLD_GLOBAL)
    for library in sorted((_HERE / "lib").iterdir()):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return device


LIBRARY = _load()
EXTRA = dict.fromkeys(("convolution", "convolution_backward", "cudnn_attention", "cudnn_attention_backward"), 0)
"""Calls of operators that are replaced in Python: they reach no library, so they are counted here."""


def reset() -> None:
    """Set all counters to 0."""
    LIBRARY.pretended_reset()
    for name in EXTRA:
        EXTRA[name] = 0


def counts() -> dict[str, int]:
    """Calls by name since `reset()`.

    `launch`: kernels. `h2d`, `d2h`, `d2d`, `h2h`: copies between host and device, with `..._bytes`, and `..._pageable`
    for copies of host memory that isn't pinned. `cudaStreamSynchronize` and its kin: waits. The rest are functions of
    NVIDIA's libraries by their own names.
    """
    text = ctypes.create_string_buffer(_SIZE)
    LIBRARY.pretended_counts(text, _SIZE)
    found: dict[str, int] = {}
    for line in text.value.decode().splitlines():
        name, calls, *more = line.split(" ") if line.count(" ") == 3 else line.rsplit(" ", 1)
        found[name] = int(calls)
        if more:
            found[f"{name}_bytes"], found[f"{name}_pageable"] = int(more[0]), int(more[1])
    return {**found, **EXTRA}


def waits(found: dict[str, int]) -> int:
    """Synchronisations among `counts()`: how often the host waited for the device."""
    return sum(found.get(f"cuda{one}Synchronize", 0) for one in ("Stream", "Device", "Event"))
