"""The ranks of a run that sample an evaluation's pictures together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from smpo.app.run.context import RunContext
from smpo.evaluation.sampling.generate import SamplingRanks

__all__ = ["sampling_ranks"]


@contextmanager
def sampling_ranks(run: RunContext) -> Iterator[SamplingRanks | None]:
    """All processes of the run, each with its own copy of the weights; None for a run of one process."""
    if run.liveness is None or run.liveness.place.world == 1:
        yield None
        return
    folder = run.folder.path / "drawn"
    if run.is_main:
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
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
