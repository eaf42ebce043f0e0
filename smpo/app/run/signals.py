"""Ctrl-C, SIGTERM and SIGHUP: finish the update, write a checkpoint, then stop. A second one stops at once.

SIGTERM is how clusters announce that they take a machine back, with half a minute's notice as a rule. An update that
takes longer than `PATIENCE` is broken off then: the weights are still those of the one before, and a resumed run does
it again, to the same end. SIGHUP, a terminal that is gone, is the same without haste, unless `nohup` has it ignored.
Outside of training, SIGTERM stops at once; what was scored and encoded is kept.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from smpo.errors import Terminated

__all__ = ["PATIENCE", "Interrupt", "any_rank_interrupted", "terminable"]

PATIENCE = 10.0
"""Seconds that an update may go on after SIGTERM, of the 30 that are usual until SIGKILL."""
_ENDS = tuple(one for name in ("SIGTERM", "SIGHUP") if (one := getattr(signal, name, None)) is not None)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated`, so that whatever was begun is ended in order. Does nothing outside
    the main thread."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handle) for number in _heeded()}
    try:
        yield
    finally:
        _restore(earlier)


def _restore(earlier: Mapping[Any, Any]) -> None:
    """Signals that were ignored meanwhile stay so: after the loss of a process the others' SIGTERM is (`Liveness`)."""
    for number, handler in earlier.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _heeded() -> list[signal.Signals]:
    """Of the signals that end a process, those that it doesn't ignore already, as `nohup` makes it."""
    return [one for one in _ENDS if signal.getsignal(one) is not signal.SIG_IGN]


def any_rank_interrupted(wish: bool, accelerator: Any) -> bool:
    """Whether any process of the run has this wish: the same answer for all of them."""
    if accelerator.num_processes == 1:
        return wish
    import torch

    wishes = torch.tensor([float(wish)], device=accelerator.device)
    return bool(accelerator.reduce(wishes, reduction="sum").item() > 0)


class Interrupt:
    """Inside the block, signals set a flag and raise nothing. Does nothing outside the main thread.

    `busy`: whether an update could be broken off right now; None where it must not be, because other processes would
    wait for it.
    """

    def __init__(self, say: Callable[[str], None], busy: Callable[[], bool] | None = None) -> None:
        self._say, self._busy = say, busy
        self._asked: signal.Signals | None = None
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {one: signal.signal(one, self._hear) for one in (signal.SIGINT, *_heeded())}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if signal.SIGALRM in self._earlier:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(self._earlier)

    def wanted(self, accelerator: Any) -> bool:
        """Whether to stop now; all processes of a run give the same answer, so that none waits for the others."""
        return any_rank_interrupted(self._asked is not None, accelerator)

    def reason(self) -> KeyboardInterrupt:
        """What to raise, once the checkpoint is written."""
        return KeyboardInterrupt() if self._asked is signal.SIGINT else Terminated()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            raise self.reason()
        self._asked = signal.Signals(number)
        if self._asked is signal.SIGTERM and self._busy is not None and hasattr(signal, "setitimer"):
            self._earlier[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.5)
        self._say(f"{self._asked.name}: stopping after this update, with a checkpoint; once more stops at once")

    def _insist(self, number: int, frame: FrameType | None) -> None:
        """The notice is running out. Called twice a second until an update is at work: writing isn't broken off."""
        if self._busy is not None and self._busy():
            raise Terminated
