"""Ctrl-C and SIGTERM during training: finish the update, write a checkpoint, then stop. A second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Inside the block, signals are remembered instead of raised. Does nothing outside the main thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._asked = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {one: signal.signal(one, self._hear) for one in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._earlier.items():
            signal.signal(one, handler)

    def wanted(self, accelerator: Any) -> bool:
        """Whether to stop now; all processes of a run give the same answer, so that none waits for the others."""
        if accelerator.num_processes == 1:
            return self._asked
        import torch

        asked = torch.tensor([float(self._asked)], device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum").item() > 0)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._say("stopping after this update, with a checkpoint; once more stops at once")
