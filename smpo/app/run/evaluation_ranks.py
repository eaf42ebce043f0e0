"""The ranks of a run that sample an evaluation's pictures together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smpo.app.run.context import RunContext
from smpo.evaluation.sampling.generate import SamplingRanks

if TYPE_CHECKING:
    pass

__all__ = ["sampling_ranks"]


@contextmanager
def sampling_ranks(run: RunContext) -> Iterator[SamplingRanks | None]:
    """Who evaluates together: all processes of the run, on the weights that each of them has; None for one alone."""
    if run.liveness is None or run.liveness.place.world == 1:
        yield None
        return
    folder = run.folder.path / "drawn"
    if run.is_main:
        shutil.rmtree(folder, ignore_errors=True)  # of other weights, perhaps, by a run that was killed
    run.liveness.barrier()
    try:
        yield SamplingRanks(
            run.liveness.place.rank,
            run.liveness.place.world,
            run.liveness.barrier,
            run.liveness.check,
            folder,
        )
    finally:
        if run.is_main:
            shutil.rmtree(folder, ignore_errors=True)
