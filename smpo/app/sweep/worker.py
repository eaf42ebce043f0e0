"""`smpo sweep`: trials of a study, each a run in its own process, until there are as many as wanted.

One process manages `jobs` trials at once: it takes settings from the study, starts a process for each, answers at
rungs, and records in the study how each ended. Any number of such processes may work on one study, on any machine that
reaches its storage; each also takes back the trials of those that died.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator

from smpo.app.run.signals import terminable
from smpo.app.sweep.display import SweepDisplay, SweepResult
from smpo.app.sweep.request import ResolvedSweep
from smpo.app.sweep.scheduler import SweepScheduler
from smpo.app.sweep.study import open_prepared, say_what
from smpo.app.sweep.workers.forkserver import Starter
from smpo.app.sweep.workers.locks import WorkerLocks
from smpo.errors import RunError
from smpo.sweep.storage import first_line, trouble

__all__ = ["sweep"]


def sweep(
    prepared: ResolvedSweep,
    screen: SweepDisplay,
    then: Callable[[SweepResult, SweepScheduler], None] | None = None,
    *,
    starter: Starter | None = None,
) -> SweepResult:
    """Work on the study until it has the wanted trials; interrupted, it can be called again and goes on.

    `then` is called with a finished study while trials can still be started; `starter` takes the place of what starts
    their processes.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    with _reachable(prepared):
        study, created = open_prepared(prepared, worker=worker)
        say_what(prepared, study, created, screen)
        with terminable(), WorkerLocks(prepared.folder / "workers", worker) as locks:
            scheduler = SweepScheduler(prepared, study, locks, screen, starter)
            try:
                result = scheduler.run()
                if then is not None and result.why == "finished":
                    then(result, scheduler)
                return result
            finally:
                scheduler.close()


@contextlib.contextmanager
def _reachable(prepared: ResolvedSweep) -> Iterator[None]:
    """An outage of the storage that doesn't end becomes a `RunError`."""
    try:
        yield
    except trouble() as error:
        if isinstance(error, OSError):  # its message is plain
            raise
        raise RunError(
            f"the study in {prepared.storage_shown} can't be reached: {first_line(error)}",
            help="nothing that ended is lost, and what runs leaves a checkpoint; the same command goes on",
        ) from error
