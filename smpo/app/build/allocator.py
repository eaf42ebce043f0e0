"""How torch's allocator takes memory from a GPU: in expandable segments, unless the environment says otherwise.

Segments of fixed size leave holes: passes with and without gradients, and inversions of other sizes, ask for blocks of
different sizes, and what fits into no hole is taken anew. Expandable segments are mapped page by page and can be filled
again. torch has them on Linux with CUDA; drivers of some virtual GPUs and boards refuse them.
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
    torch has no expandable segments, and after the first use of the GPU: then its memory is somebody else's affair."""
    if sys.platform == "linux" and torch.version.cuda and not torch.cuda.is_initialized():
        if allocator_settings() is None:
            os.environ[ALLOCATOR[0]] = EXPANDABLE


def allocator_settings() -> str | None:
    """What the environment says, None where it says nothing."""
    return next((os.environ[name] for name in ALLOCATOR if os.environ.get(name)), None)


def check_allocator(say: Callable[[str], None] = lambda text: None) -> None:
    """Make a first allocation on the current device; where the driver refuses the segments that smpo chose, go on
    with torch's own. Raises what else the driver says, such as that the GPU is full."""
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
        torch.empty(1, device="cuda")  # says what is really wrong, if it was something else
        say("this GPU's driver has no expandable segments; memory is taken in segments of fixed size")
