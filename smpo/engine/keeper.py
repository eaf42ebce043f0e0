"""Which checkpoints are kept, and what happens when the disk refuses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smpo.engine.checkpoint import write
from smpo.engine.kept import checkpoints, drop_old, fault_of
from smpo.engine.state import Snapshot, State, snapshot
from smpo.errors import RunError

__all__ = ["Keeper"]


class Keeper:
    """Writes the checkpoints of one run into `folder` and drops all but the newest `keep`.

    A disk that is full costs a checkpoint, not the run: older ones than the newest make room, and where that isn't
    enough training goes on, in words, until the next one is due. Only the last checkpoint of a run must succeed.
    """

    def __init__(self, folder: Path, *, keep: int, spec_hash: str, say: Callable[[str], None]) -> None:
        self._folder, self._keep, self._spec_hash, self._say = folder, keep, spec_hash, say

    def put(
        self, step: int, state: State, facts: Mapping[str, Any] | None = None, *, must: bool = False
    ) -> None:
        """Keep the state after `step` updates. Raises `RunError` when it `must` be written and can't be."""
        kept = snapshot(state)
        try:
            self._write(step, kept, facts)
        except OSError as error:
            stands = [path for path in checkpoints(self._folder) if fault_of(path) is None]
            before = f"{stands[-1].name} is whole" if stands else "there is none before it"
            reason = error.strerror or str(error)
            if must:
                raise RunError(
                    f"the checkpoint after update {step} ({_in_mb(kept.bytes)}) could not be written under "
                    f"{self._folder}: {reason}; {before}",
                    help="make room there, then go on with `--resume`",
                ) from error
            self._say(
                f"the checkpoint after update {step} could not be written ({reason}); {before}, and training goes on"
            )

    def _write(self, step: int, kept: Snapshot, facts: Mapping[str, Any] | None) -> None:
        try:
            write(self._folder, step, kept, spec_hash=self._spec_hash, facts=facts)
        except OSError:
            if self._keep < 2 or len(checkpoints(self._folder)) < 2 or not self._newest_is_whole():
                raise
            for gone in drop_old(self._folder, 1):
                self._say(f"{gone.name} was deleted to make room for the checkpoint after update {step}")
            write(self._folder, step, kept, spec_hash=self._spec_hash, facts=facts)
        drop_old(self._folder, self._keep)

    def _newest_is_whole(self) -> bool:
        return fault_of(checkpoints(self._folder)[-1]) is None


def _in_mb(size: int) -> str:
    return f"{max(size / 1e6, 0.1):,.1f} MB"
