"""The ranks of a run that sample an evaluation's pictures together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smpo.app.run.context import Attempt
from smpo.evaluation.sampling.generate import Crew

if TYPE_CHECKING:
    pass

__all__ = ["crew_of"]


@contextmanager
def crew_of(run: Attempt) -> Iterator[Crew | None]:
    """Who evaluates together: all processes of the run, on the weights that each of them has; None for one alone."""
    if run.call is None or run.call.place.world == 1:
        yield None
        return
    folder = run.folder.path / "drawn"
    if run.main:
        shutil.rmtree(folder, ignore_errors=True)  # of other weights, perhaps, by a run that was killed
    run.call.meet()
    try:
        yield Crew(run.call.place.rank, run.call.place.world, run.call.meet, run.call.check, folder)
    finally:
        if run.main:
            shutil.rmtree(folder, ignore_errors=True)
