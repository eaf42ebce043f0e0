"""A run of several processes, as each of them sees it.

`smpo run --devices`, torchrun, accelerate or Slurm starts the same command several times. The main process does what a
run of one process does, and is the only one that prints, plans, opens the folder and logs to trackers. The others wait
for the folder, load the *resolved* spec from it, and train along.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smpo.app.console import Console
from smpo.app.distributed.environment import RankInfo
from smpo.app.distributed.liveness import Liveness
from smpo.app.plan.plan import Plan
from smpo.app.run.record import describe
from smpo.app.run.run import Result, work
from smpo.errors import MachineError, SmpoError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import RunExists, RunFolder, open_run

__all__ = [
    "abort_on_error",
    "require_single_process",
    "run_rank0",
    "run_worker_rank",
    "shutdown_process_group",
]


def require_single_process(place: RankInfo | None, what: str, instead: str) -> None:
    """Raises `MachineError` where a launcher has started several processes of `what`, which takes one."""
    if place is not None and place.world > 1:
        raise MachineError(
            f"{place.launcher} started {place.world} processes, and {what} is the work of one",
            help=f"start it by itself; {instead} says how much is done at once",
        )


@contextmanager
def abort_on_error(place: RankInfo | None) -> Iterator[None]:
    """Around everything that the main process does before there is a run: an error ends the other processes too."""
    try:
        yield
    except BaseException:
        if place is not None:
            Liveness(place).abort_all()
        raise


def run_rank0(
    place: RankInfo,
    resolved: Resolved[ExperimentSpec],
    plan: Plan,
    console: Console,
    *,
    again: bool = False,
    resume: bool = False,
) -> Result:
    """The main process: opens the run's folder, publishes it, and works. After a restart by the launcher it resumes."""
    spec, restarted = resolved.spec, place.restarts > 0
    try:
        with abort_on_error(place):
            folder = open_run(
                Path(spec.runtime.runs),
                spec.name,
                resolved.identity.spec_hash,
                again=again and not restarted,
                resume=resume or restarted,
            )
            describe(folder, resolved, plan)
    except RunExists as error:
        if not restarted:
            raise
        console.note("all was done when the processes were started again")
        return Result(error.folder)
    with folder:
        liveness = Liveness(place)
        liveness.begin(folder.path, resumed=folder.resumed)
        try:
            with liveness.watching():
                result = work(resolved, folder, console, liveness=liveness)
                shutdown_process_group()
        finally:
            liveness.wait_for_all()
    return result


def run_worker_rank(place: RankInfo, *, roots: Sequence[Path] = ()) -> None:
    """Any other process: trains along with the main one. Raises `MachineError` where this machine doesn't see the run's
    folder, and errors that no process before it reports: otherwise the exit code of the main process counts, and this
    one ends with 0, lest the launcher terminate the main process while it reports."""
    from smpo.tracking.console import Console as Terminal

    liveness = Liveness(place)
    published = liveness.receive_run()
    if published is None:
        return
    path, resumed = published
    if not (path / "resolved.yaml").is_file():
        raise MachineError(
            f"{place} doesn't find the run's folder {path} on its machine",
            help="`runtime.runs` and `runtime.cache` must lie on a file system that all machines share",
        )
    resolved = resolve(path / "resolved.yaml", skeleton=ExperimentSpec, extra_roots=roots)
    with Terminal(quiet=True, stream=open(os.devnull, "w", encoding="utf-8")) as console:  # noqa: PTH123
        try:
            with liveness.watching():
                work(resolved, RunFolder(path, resumed=resumed), console, main=False, liveness=liveness)
                shutdown_process_group()
        except KeyboardInterrupt:
            return
        except SmpoError:
            if not liveness.error_reported_elsewhere():
                raise


def shutdown_process_group() -> None:
    """Destroy the process group before Python ends.

    gloo's threads release the last tensors that they sent when Python lets them run; a thread that is refused because
    the interpreter ends aborts the process (`terminate called without an active exception`).
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(0.05)  # Python is free for those threads
