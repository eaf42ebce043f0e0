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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from smpo.app.distributed.environment import LAUNCHER, PRESENT, RankInfo, export_environment

__all__ = ["launch"]

GRACE = 600.0
"""Seconds that the others have, once one is gone, to notice it, save what they can and say why. They look after that
themselves (`smpo.app.distributed.liveness`); this is for those that can't."""
WORDS = 60.0
"""Seconds that those have who wait for one that ended before they knew of it, with an exit code: it, or they, are just
saying why. One that was killed says nothing, and nothing is waited for."""
_NOTICE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
_HELP = "help: killed, or out of memory? (`dmesg`); what was finished is kept, and `--resume` goes on\n"


def launch(arguments: Sequence[str], devices: int, *, threads: int | None = None) -> int:
    """`smpo ARGUMENTS` on `devices` processes; returns the code to end with. The processes say why they end; of those
    that couldn't, it is said here how they died."""
    port, team = _free_port(), _ProcessGroup()
    # `-m` looks into the current folder first, which is nobody's business, unless smpo itself was found that way.
    python = [sys.executable, *(() if Path(sys.argv[0]).name == "__main__.py" else ("-P",))]
    for rank in range(devices):
        environment = dict(os.environ) | {LAUNCHER: "smpo run", PRESENT: str(team.told)}
        environment.setdefault("OMP_NUM_THREADS", str(threads or 1))
        export_environment(RankInfo(rank, devices, rank, "127.0.0.1", port, "smpo run"), environment)
        team.start([*python, "-m", "smpo", *arguments], environment)
    return team.wait()


class _ProcessGroup:
    """The processes, and which of them watch each other by now: each says so into a pipe.

    Until then nobody can know that one is gone, and who waits for it waits for ever. Nothing is trained before all are
    there, so they are ended.
    """

    def __init__(self) -> None:
        self._heard, self.told = os.pipe()
        os.set_blocking(self._heard, False)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._present: set[int] = set()
        self._gone: dict[int, float] = {}
        """When those that failed were found gone."""
        self._ended: dict[int, float] = {}
        """When those were told to end that waited for them."""
        self._interrupted = False

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._processes.append(
            subprocess.Popen(command, env=environment, pass_fds=[self.told])  # noqa: S603
        )

    def wait(self) -> int:
        """Until all have ended. Ctrl-C reaches them by itself; SIGTERM is passed on. Neither ends the waiting."""
        handlers = {signal.SIGINT: self._note, signal.SIGTERM: self._pass_on}
        earlier = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            while (codes := [process.poll() for process in self._processes]).count(None):
                self._hear()
                self._end_those_who_wait(codes)
                time.sleep(0.05)
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            os.close(self._heard)
            os.close(self.told)
        return self._verdict([code for code in codes if code is not None])

    def _note(self, *_: object) -> None:
        self._interrupted = True

    def _pass_on(self, *_: object) -> None:
        self._interrupted = True
        for process in self._processes:
            process.terminate()

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._present.update(os.read(self._heard, 4096))

    def _end_those_who_wait(self, codes: Sequence[int | None]) -> None:
        now = time.monotonic()
        for rank, code in enumerate(codes):
            if code:
                self._gone.setdefault(rank, now)
        for rank, code in enumerate(codes):
            if code is None and any(self._is_over(rank, gone, codes[gone] or 0) for gone in self._gone):
                told = self._ended.setdefault(rank, now)
                with suppress(ProcessLookupError):
                    if told == now:
                        self._processes[rank].terminate()
                    elif now - told > _NOTICE:
                        self._processes[rank].kill()

    def _is_over(self, rank: int, gone: int, code: int) -> bool:
        since = time.monotonic() - self._gone[gone]
        if {rank, gone} <= self._present:
            return since > GRACE
        return code < 0 or since > WORDS

    def _verdict(self, codes: Sequence[int]) -> int:
        for rank, code in enumerate(codes):
            if code < 0 and rank not in self._ended:
                sys.stderr.write(f"process {rank} of {len(codes)} was ended by {_name(-code)}\n")
        if self._ended and not self._interrupted:
            sys.stderr.write(_HELP)
            return next((code for rank, code in enumerate(codes) if code > 0 and rank not in self._ended), 1)
        return max(codes) or int(any(codes))


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
