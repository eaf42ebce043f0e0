"""Names of images that follow from their content, so that caches survive renamed files and shuffled rows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["content_id"]

LENGTH = 32
"""Hex digits that are kept: 128 bits, so two of a million images share an id with probability 1e-27."""


def content_id(content: bytes | np.ndarray[Any, Any]) -> str:
    """The first 128 bits of SHA-256, in hex. Arrays count with dtype and shape: equal points have equal
    ids."""
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        digest.update(content)
    else:
        digest.update(f"{content.dtype.str}{content.shape}".encode())
        digest.update(content.tobytes())  # always in C order, whatever the strides
    return digest.hexdigest()[:LENGTH]
