"""`smpo run --devices N`: torch's elastic launcher starts the command N times on this machine, one process per device.

Torch sends SIGTERM to the siblings of a process that failed, and SIGKILL after `GRACE` seconds: the time that a
survivor has for its checkpoint.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil

__all__ = ["GRACE", "launch"]

GRACE = 600
"""Seconds. A checkpoint of SDXL with AdamW has 31 GB, for which a network disk takes minutes."""

_HELP = "help: killed, or out of memory? (`dmesg`); what was finished is kept, and `--resume` goes on\n"


def launch(arguments: Sequence[str], devices: int, *, threads: int | None = None) -> int:
    """Run `smpo ARGUMENTS` in `devices` processes of `threads` threads; returns the exit code of the process that
    failed first, else 0. A process that was killed is named on stderr."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(threads or 1))
    # `-m` looks into the current folder first, which may hold a `smpo` too; `-P` leaves it out.
    safe_path = () if Path(sys.argv[0]).name == "__main__.py" else ("-P",)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    start = elastic_launch(config, sys.executable)
    # Not in the main thread, where torch replaces the handlers of signals by its own.
    with _signals(), _without_logging(), _grace(), ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(start, *safe_path, "-m", "smpo", *arguments).result()
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode > 0:
                return int(failure.exitcode)
            name = _signal_name(-failure.exitcode)
            sys.stderr.write(f"process {rank} of {devices} was ended by {name} (process id {failure.pid})\n{_HELP}")
            return 1
    return 0


@contextmanager
def _signals() -> Iterator[None]:
    """Pass Ctrl-C, SIGTERM and SIGHUP on: torch starts each process in a session of its own, out of the terminal's
    reach. `nohup` has SIGHUP ignored, and it stays so."""

    def pass_on(number: int, frame: object) -> None:
        for process in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    passed = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    earlier = {number: signal.signal(number, pass_on) for number in passed}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _grace() -> Iterator[None]:
    """Torch has a setting for the time between SIGTERM and SIGKILL after a signal, and 30 fixed seconds after a
    failure."""
    from torch.distributed.elastic.multiprocessing.api import SubprocessContext

    close = SubprocessContext.close

    def patient(context: SubprocessContext, death_sig: signal.Signals | None = None, timeout: int = 0) -> None:
        close(context, death_sig, GRACE)

    SubprocessContext.close = patient  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        SubprocessContext.close = close  # type: ignore[method-assign]


@contextmanager
def _without_logging() -> Iterator[None]:
    """Torch logs the failure of a process with a table and a traceback."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
