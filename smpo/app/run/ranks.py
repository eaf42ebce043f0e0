"""A run of several processes, as each of them sees it.

The same command is started several times, by `smpo run --devices`, torchrun, accelerate or Slurm. The main process does
what a run of one process does and is the only one that speaks, plans, opens the folder and reports to trackers. The
others wait for its word and then train along; they read the *resolved* spec, so that nothing is resolved twice.
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
    """Raise `MachineError` where a launcher has started several of what is meant to be one."""
    if place is not None and place.world > 1:
        raise MachineError(
            f"{place.launcher} started {place.world} processes, and {what} is the work of one",
            help=f"start it by itself; {instead} says how much is done at once",
        )


@contextmanager
def abort_on_error(place: RankInfo | None) -> Iterator[None]:
    """Around everything that the main process does before there is a run: whatever ends it ends the others too."""
    try:
        yield
    except BaseException as error:
        if place is not None:
            finished = isinstance(error, RunExists) and place.restarts > 0
            Liveness(place).abort_all(
                0 if finished else error.exit_code if isinstance(error, SmpoError) else 1
            )
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
    """The main process: opens the run, says so, and does it. After a restart by the launcher it goes on by itself."""
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
        call = Liveness(place)  # kept: the store may live in this process
        call.begin(folder.path, resumed=folder.resumed)
        try:
            with call.watching():
                result = work(resolved, folder, console, call=call)
                shutdown_process_group()
        finally:
            call.wait_for_all()
    return result


def run_worker_rank(place: RankInfo, *, roots: Sequence[Path] = (), no_local_code: bool = False) -> int:
    """Any other process: waits for the main one and trains along. Returns the code to end with. Raises `MachineError`
    where this machine doesn't see the run's folder."""
    from smpo.tracking.console import Console as Terminal

    call = Liveness(place)
    said = call.receive_run()
    if isinstance(said, int):
        return said
    path, resumed = said
    if not (path / "resolved.yaml").is_file():
        raise MachineError(
            f"{place} doesn't find the run's folder {path} on its machine",
            help="`runtime.runs` and `runtime.cache` must lie on a file system that all machines share",
        )
    resolved = resolve(
        path / "resolved.yaml", skeleton=ExperimentSpec, extra_roots=roots, no_local_code=no_local_code
    )
    with Terminal(quiet=True, stream=open(os.devnull, "w", encoding="utf-8")) as console:  # noqa: PTH123
        try:
            with call.watching():
                work(resolved, RunFolder(path, resumed=resumed), console, main=False, call=call)
                shutdown_process_group()
        except KeyboardInterrupt as stop:
            return int(getattr(stop, "exit_code", 130))
        except SmpoError as error:
            if call.error_reported_elsewhere():
                return error.exit_code
            raise
    return 0


def shutdown_process_group() -> None:
    """Say good-bye to the other processes: one that just ends while they still work may be aborted by its threads.

    gloo's threads let go of the last tensors they sent when Python lets them run, and one that is refused since the
    interpreter is already going aborts the process (`terminate called without an active exception`).
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_REST)


_REST = 0.05  # seconds in which Python is free for them
