"""Looks at the held-out pairs during a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smpo.app.assemble import Live
from smpo.app.plan import looks_every
from smpo.experiment import ExperimentSpec
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.engine.holdout import Holdout

__all__ = ["Look", "diagnosis"]

FILE = "holdout.json"
"""The base's errors, so that a resumed run compares with the same numbers and needs no reference for it."""


@dataclass(frozen=True)
class Look:
    """The held-out pairs of a run, and when they are due."""

    holdout: Holdout
    base: Tensor
    live: Live
    every: int
    steps: int

    @property
    def passes(self) -> int:
        """Network passes of one look."""
        return int(self.base.numel())

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def metrics(self) -> dict[str, float]:
        """The policy as it is now (not its average), against the base."""
        errors = self.holdout.errors(self.live.session.denoiser)
        return self.holdout.metrics(errors, self.base)


def diagnosis(
    spec: ExperimentSpec, live: Live, folder: RunFolder, start: int, note: Callable[[str], None]
) -> Look | None:
    """What to look at, or None when nothing is held out. Call it before the first update."""
    import torch

    from smpo.engine.holdout import Holdout

    if not live.held.held:
        return None
    denoiser, rows = live.session.denoiser, live.held.held
    size = spec.runtime.micro_batch or spec.train.batch // spec.runtime.devices
    share = torch.tensor([live.table[row].share for row in rows], dtype=torch.float64)
    holdout = Holdout(list(live.loader.fixed(rows, size)), share, live.session.settings)
    stored = folder.path / FILE
    if stored.exists():
        base = torch.tensor(json.loads(stored.read_text())["errors"], dtype=torch.float64)
    else:
        # Before the first update the policy is the reference: no second network has to be loaded for this.
        base = holdout.errors(denoiser, reference=start > 0)
        ids = [name for batch in holdout.batches for name in batch.ids]
        facts = {"pairs": ids, "timesteps": holdout.timesteps, "errors": base.tolist()}
        folder.write_text(FILE, json.dumps(facts))
    note(
        f"{len(rows)} pairs are held out, and {live.held.dropped} that share an image with them aren't trained on "
        "either"
    )
    return Look(holdout, base, live, looks_every(spec), spec.train.steps)
