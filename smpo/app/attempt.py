"""One attempt at an experiment: what is run, where, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smpo.app.ledger import Ledger
from smpo.app.watchers import Console, Overseer
from smpo.engine.events import Tracker
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from smpo.app.assemble import Live

__all__ = ["Attempt"]


@dataclass(frozen=True)
class Attempt:
    """What the parts of a run have in common. `start`: updates that a checkpoint brought along. `main`: whether this
    process is the one that writes."""

    resolved: Resolved[ExperimentSpec]
    folder: RunFolder
    live: Live
    tracker: Tracker
    console: Console
    clock: Ledger
    start: int = 0
    main: bool = True
    overseer: Overseer | None = None

    @property
    def spec(self) -> ExperimentSpec:
        return self.resolved.spec

    @property
    def parameters(self) -> dict[str, Any]:
        """What is trained, by name."""
        from smpo.app.assemble import trained

        session = self.live.session
        return trained(session.accelerator.unwrap_model(session.denoiser.policy))
