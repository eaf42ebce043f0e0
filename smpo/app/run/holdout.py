"""Metrics of the held-out pairs during a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.app.build.live import LiveRun
from smpo.app.plan.forward_passes import looks_every
from smpo.experiment import ExperimentSpec
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.engine.monitoring.holdout import Holdout

__all__ = ["HoldoutMonitor", "diagnosis"]

FILE = "holdout.json"
"""The base's errors, so that a resumed run compares with the same numbers and needs no reference for it."""


@dataclass(frozen=True)
class HoldoutMonitor:
    """The held-out pairs of a run, and when they are due."""

    holdout: Holdout
    base: Tensor
    live: LiveRun
    every: int
    steps: int
    spend: Callable[[int], None]
    """Receives the number of network passes of an evaluation."""
    _known: dict[int, Tensor] = field(default_factory=dict)
    """The errors after the last evaluated update, computed once."""

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def metrics(self, step: int) -> dict[str, float]:
        """The policy as it is now, after update `step` (not its average), against the base."""
        return self.holdout.metrics(self._errors(step), self.base)

    def margins(self, step: int) -> list[float]:
        """Of each held-out pair, as in `metrics`."""
        margins: list[float] = self.holdout.margins(self._errors(step), self.base).tolist()
        return margins

    def _errors(self, step: int) -> Tensor:
        if step not in self._known:
            self._known.clear()
            self._known[step] = self.holdout.errors(self.live.session.denoiser)
            self.spend(self.base.numel())
        return self._known[step]


def diagnosis(
    spec: ExperimentSpec,
    live: LiveRun,
    folder: RunFolder,
    start: int,
    note: Callable[[str], None],
    spend: Callable[[int], None],
) -> HoldoutMonitor | None:
    """The monitor, or None when nothing is held out. Call it before the first update: until then the policy is the
    reference, and its errors are the base's."""
    import torch

    from smpo.engine.monitoring.holdout import Holdout

    if not live.holdout.held:
        return None
    denoiser, rows = live.session.denoiser, live.loader.together(live.holdout.held)
    size = spec.runtime.micro_batch or spec.train.batch // spec.runtime.devices
    share = torch.tensor([live.table[row].share for row in rows], dtype=torch.float64)
    holdout = Holdout(list(live.loader.fixed(rows, size)), share, live.session.settings)
    known = _stored(folder.path / FILE, len(holdout.timesteps))
    if known is not None:
        base = known
    else:
        # Before the first update the policy is the reference: no second network has to be loaded for this.
        base = holdout.errors(denoiser, reference=start > 0)
        ids = [name for batch in holdout.batches for name in batch.ids]
        facts = {"pairs": ids, "timesteps": holdout.timesteps, "errors": base.tolist()}
        folder.write_text(FILE, json.dumps(facts))
    note(
        f"{len(rows)} pairs are held out, and {live.holdout.dropped} that share an image with them aren't trained on "
        "either"
    )
    return HoldoutMonitor(holdout, base, live, looks_every(spec), spec.train.steps, spend)


def _stored(file: Path, timesteps: int) -> Tensor | None:
    """The base's errors `[2, T, M]` as an earlier part of the run wrote them; None where they must be computed."""
    import torch

    try:
        errors: Tensor = torch.tensor(json.loads(file.read_text(encoding="utf-8"))["errors"], dtype=torch.float64)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return errors if errors.ndim == 3 and errors.shape[:2] == (2, timesteps) else None
