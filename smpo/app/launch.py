"""`smpo run --devices N`: the same command N times on this machine, one process a device.

The parent imports no torch and does nothing but wait: it learns how each process ended, so it can say who died when
that one can't say it any more. Nobody is left waiting for a process that is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # noqa: S404, RUF100
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from smpo.app.place import LAUNCHER, Place, enter

__all__ = ["launch"]

GRACE = 600.0
"""Seconds that the others have, once one is gone, to notice it, save what they can and say why. They look after that
themselves (`smpo.app.rollcall`); this is for those that can't."""


def launch(arguments: Sequence[str], devices: int, *, threads: int | None = None) -> int:
    """`smpo ARGUMENTS` on `devices` processes; returns the code to end with. The processes say why they end; of those
    that couldn't, it is said here how they died."""
    port, processes = _free_port(), []
    # `-m` looks into the current folder first, which is nobody's business, unless smpo itself was found that way.
    python = [sys.executable, *(() if Path(sys.argv[0]).name == "__main__.py" else ("-P",))]
    for rank in range(devices):
        environment = dict(os.environ) | {LAUNCHER: "smpo run"}
        environment.setdefault("OMP_NUM_THREADS", str(threads or 1))
        enter(Place(rank, devices, rank, "127.0.0.1", port, "smpo run"), environment)
        processes.append(subprocess.Popen([*python, "-m", "smpo", *arguments], env=environment))  # noqa: S603
    codes = _wait(processes)
    for rank, code in enumerate(codes):
        if code < 0:
            sys.stderr.write(f"process {rank} of {devices} was ended by {_name(-code)}\n")
    return max(codes) or int(any(codes))


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Until all have ended. Ctrl-C reaches them by itself; SIGTERM is passed on. Neither ends the waiting."""

    def pass_on(*_: object) -> None:
        for process in processes:
            process.terminate()

    earlier = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    failed: float | None = None
    try:
        while (codes := [process.poll() for process in processes]).count(None):
            if failed is None and any(codes):
                failed = time.monotonic()
            if failed is not None and time.monotonic() - failed > GRACE:
                for process in processes:
                    with suppress(ProcessLookupError):
                        process.kill()
            time.sleep(0.05)
        return [code for code in codes if code is not None]
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
