"""How torch's allocator takes memory from a GPU: in expandable segments, unless a variable of `ALLOCATOR` is set.

Segments of fixed size leave holes that blocks of other passes don't fit into. Expandable segments are mapped page by
page and can be filled again. torch has them on Linux with CUDA; drivers of some virtual GPUs and boards refuse them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch

__all__ = ["ALLOCATOR", "allocator_settings", "check_allocator", "prefer_expandable_segments"]

ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Variables that torch reads before its first allocation; 2.6 to 2.8 know the first alone."""
EXPANDABLE, FIXED = "expandable_segments:True", "expandable_segments:False"


def prefer_expandable_segments() -> None:
    """Set the variable for this process and those it starts. Without effect where one of `ALLOCATOR` is set, where
    torch has no expandable segments, and after the first use of the GPU."""
    if sys.platform == "linux" and torch.version.cuda and not torch.cuda.is_initialized():
        if allocator_settings() is None:
            os.environ[ALLOCATOR[0]] = EXPANDABLE


def allocator_settings() -> str | None:
    """The value in the environment, None where it is unset."""
    return next((os.environ[name] for name in ALLOCATOR if os.environ.get(name)), None)


def check_allocator(say: Callable[[str], None] = lambda text: None) -> None:
    """Make a first allocation on the current device; where the driver refuses the segments that smpo chose, go on
    with torch's own. Raises the driver's other errors, such as a full GPU."""
    try:
        torch.empty(1, device="cuda")
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if os.environ.get(ALLOCATOR[0]) != EXPANDABLE:
            raise
        os.environ[ALLOCATOR[0]] = FIXED
        set_now = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        (set_now or torch.cuda.memory._set_allocator_settings)(FIXED)
        torch.empty(1, device="cuda")  # raises the real error, if it was another one
        say("this GPU's driver has no expandable segments; memory is taken in segments of fixed size")
