"""What the processes of a run tell each other outside of training: where the run's folder is, or that there is none.

The main process plans, refuses, and opens the folder; the others wait for its word. They meet in the key-value
store that every launcher of torch provides, before any of them sets up a network for gradients.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from smpo.app.place import Place, enter

__all__ = ["RollCall"]

_PATIENCE = timedelta(minutes=30)
"""For machines that start late."""
_HEARD = 60.0
"""Seconds to wait until all others have heard that there is no run."""


class RollCall:
    """The store, as process `place` sees it."""

    def __init__(self, place: Place) -> None:
        from torch.distributed import rendezvous

        enter(place)
        self.place = place
        self._store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        self._prefix = f"smpo/{place.restarts}/"

    def begin(self, folder: Path, *, resumed: bool) -> None:
        """Main process: this is the run."""
        self._set("begin", {"folder": str(folder.absolute()), "resumed": resumed})

    def refuse(self, code: int) -> None:
        """Main process: there will be no run, and it was said why. Returns when all have heard it, as the store may end
        with this process."""
        self._set("begin", {"code": code})
        deadline = time.monotonic() + _HEARD
        while self._store.add(self._prefix + "heard", 0) < self.place.world - 1:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def answer(self) -> tuple[Path, bool] | int:
        """Other processes: the run's folder and whether it is resumed, or the code to end with."""
        said = self._get("begin")
        self._store.add(self._prefix + "heard", 1)
        return (Path(said["folder"]), bool(said["resumed"])) if "folder" in said else int(said["code"])

    def _set(self, name: str, facts: dict[str, Any]) -> None:
        self._store.set(self._prefix + name, json.dumps(facts))

    def _get(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._store.get(self._prefix + name))
        return facts
