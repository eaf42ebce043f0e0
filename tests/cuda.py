"""A card that torch reports on machines without one: enough for code that asks `torch.cuda` about it.

The replaced functions keep the signatures of torch's own, and every other name is torch's: a misspelt call is an
AttributeError, a wrong argument a TypeError, and a call that needs a true card fails as it does without one.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, create_autospec

import pytest
import torch

__all__ = ["OnCard", "pretend_card", "pretend_memory"]

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


def pretend_memory(patch: pytest.MonkeyPatch) -> None:
    """Let what is moved to the card, pinned or allocated there lie in the CPU's memory. Streams and events do nothing;
    `torch.cuda.Stream` and `torch.cuda.Event` note the calls of their methods, and have only those of torch."""
    plain_empty, plain_to = torch.empty, torch.Tensor.to

    def empty(*size: Any, device: Any = None, pin_memory: bool = False, **how: Any) -> torch.Tensor:
        return plain_empty(*size, device=None if _on_card(device) else device, **how)

    def to(self: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        return plain_to(self, *("cpu" if _on_card(one) else one for one in where), **how)

    patch.setattr(torch, "empty", empty)
    patch.setattr(torch.Tensor, "to", to)
    patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    patch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    for name in ("Stream", "Event"):
        true = getattr(torch.cuda, name)
        made = create_autospec(true)
        made.side_effect = lambda *_, true=true, **__: MagicMock(spec=true)
        patch.setattr(torch.cuda, name, made)
    stream = create_autospec(torch.cuda.current_stream, return_value=torch.cuda.Stream())
    patch.setattr(torch.cuda, "current_stream", stream)
    patch.setattr(torch.cuda, "stream", create_autospec(torch.cuda.stream, return_value=nullcontext()))


class OnCard(torch.Tensor):
    """A tensor in the CPU's memory that gives the card as its device: `tensor.as_subclass(OnCard)`."""

    device = torch.device("cuda", 0)  # type: ignore[assignment]


def _on_card(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"
