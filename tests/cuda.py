"""A card that torch reports on machines without one: enough for code that asks `torch.cuda` about it.

The replaced functions keep the signatures of torch's own, and every other name is torch's: a misspelt call is an
AttributeError, a wrong argument a TypeError, and a call that needs a true card fails as it does without one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

__all__ = ["pretend_card"]

_ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_initialized": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "NVIDIA H200",
    "get_device_capability": (9, 0),
    "get_device_properties": SimpleNamespace(name="NVIDIA H200", total_memory=141 * 10**9, uuid="cafe"),
    "mem_get_info": (140 * 10**9, 141 * 10**9),
    "max_memory_allocated": 3 * 2**30,
    "reset_peak_memory_stats": None,
    "empty_cache": None,
}


def pretend_card(patch: pytest.MonkeyPatch, **answers: Any) -> None:
    """Let functions of `torch.cuda` return `answers`, by name, and those of a machine with one card otherwise.

    Raises `AttributeError` for a name that torch doesn't have.
    """
    for name, answer in {**_ANSWERS, **answers}.items():
        patch.setattr(torch.cuda, name, create_autospec(getattr(torch.cuda, name), return_value=answer))
