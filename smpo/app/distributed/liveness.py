"""The processes of a run in the key-value store of their launcher: the run's folder, barriers, and failures.

The launcher (`smpo run --devices`, torchrun, accelerate, `srun --kill-on-bad-exit`) ends the siblings of a process that
failed. Three promises are beyond it, and are kept here (tests/devices/test_dead_process.py):

- the first surviving process writes the checkpoint and names the process that is gone
  (`test_another_process_dies`, `test_the_main_process_dies`, `test_errors_that_come_of_an_absence_are_put_down_to_it`);
- a barrier ends when a process failed, where a collective would wait for days (`test_who_fails_isn_t_waited_for`);
- another machine that is gone is noticed (`test_silence_on_another_machine_is_noticed`), and ends a process that waits
  for it inside NCCL (`test_a_process_that_waits_inside_a_library_is_ended`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from smpo.app.distributed.environment import RankInfo, export_environment
from smpo.errors import RunError, SmpoError, Terminated

__all__ = ["DeadRank", "Liveness", "RankLost", "init_process_group_after_restart"]

_START_TIMEOUT = timedelta(minutes=30)
"""For machines that start late."""
_END_TIMEOUT = 60.0
"""Seconds to wait for other processes that are about to end."""
_HELP = "killed, or out of memory? (`dmesg` on its machine); go on from the last checkpoint with `--resume`"


class RankLost(RunError):
    """Another process of the run is gone, and this one can't go on without it."""


@dataclass(frozen=True)
class DeadRank:
    """A process that is gone: `how`, and what to do about it."""

    rank: int
    how: str
    help: str | None = _HELP


def init_process_group_after_restart(*, cpu: bool, patience: timedelta) -> None:
    """Open the process group where torchrun has restarted all processes; otherwise accelerate opens it.

    torchrun keeps one store over restarts, and a group writes its addresses under the same names each time: a quick
    process would read the address at which a dead one listened. Each attempt gets a prefix of its own.
    """
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if not restarts or distributed.is_initialized():
        return
    store, rank, world = next(rendezvous("env://", timeout=patience))
    distributed.init_process_group(
        "gloo" if cpu else "nccl",
        store=PrefixStore(f"smpo/{restarts}/group", store),
        rank=rank,
        world_size=world,
        timeout=patience,
    )


class Liveness:
    """The store, as process `place` sees it.

    `silence`: seconds after which a process on another machine without a heartbeat counts as gone. `grace`: seconds
    that this process then has to save what it can, before it is ended. `every`: seconds between heartbeats.
    """

    def __init__(self, place: RankInfo, *, silence: float = 300.0, grace: float = 20.0, every: float = 1.0) -> None:
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        export_environment(place)
        self.place = place
        self._silence, self._grace = silence, grace
        self._every = every * max(1, place.world // 16)  # one store answers all processes
        store, _, _ = next(rendezvous("env://", timeout=_START_TIMEOUT))
        prefix = f"smpo/{place.restarts}"
        self._store = PrefixStore(prefix, store)
        self._watched_store = PrefixStore(prefix, store.clone())  # a thread needs its own
        self._others = [rank for rank in range(place.world) if rank != place.rank]
        self._address = f"{socket.gethostname()} {os.getpid()}"
        self._addresses: dict[int, str] = {}
        self._beats: dict[int, tuple[int, float]] = {}
        """The last heartbeat of each process, and when it was seen first."""
        self._noticed, self._over = threading.Event(), threading.Event()
        self._barriers = 0
        self.absent: dict[int, DeadRank] = {}
        """The processes that are known to be gone."""

    # ------------------------------------------------------------------------------------------- before there is a run

    def begin(self, folder: Path, *, resumed: bool) -> None:
        """Main process: publish the run's folder."""
        self._set("begin", {"folder": str(folder.absolute()), "resumed": resumed})

    def abort_all(self) -> None:
        """Main process: there will be no run. Returns when all have read it, as the store may end with this process."""
        self._set("begin", {})
        deadline = time.monotonic() + _END_TIMEOUT
        while self._store.add("received", 0) < len(self._others) and time.monotonic() < deadline:
            time.sleep(0.05)

    def receive_run(self) -> tuple[Path, bool] | None:
        """Other processes: the run's folder and whether it is resumed; None where there is no run."""
        begin = json.loads(self._store.get("begin"))
        self._store.add("received", 1)
        return (Path(begin["folder"]), bool(begin["resumed"])) if begin else None

    # ---------------------------------------------------------------------------------------------------- during a run

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the work: heartbeats in a thread, and at the end a message to the other processes. An error, or the
        launcher's SIGTERM, that follows from the loss of a process becomes `RankLost`, which names it."""
        self._set(f"address/{self.place.rank}", {"address": self._address})
        watch = threading.Thread(target=self._watch, name="liveness", daemon=True)
        watch.start()
        end: dict[str, Any] = {"failed": False}
        try:
            yield
        except RankLost:
            raise
        except SmpoError as error:
            end = {"failed": True, "message": error.message, "help": error.help}
            raise
        except (Exception, Terminated) as error:
            if (gone := self.first_dead_rank(wait=not isinstance(error, Terminated))) is not None:
                raise self._lost(gone) from error
            if not isinstance(error, Terminated):
                end = {"failed": True, "message": f"{type(error).__name__}: {error}", "help": None}
            raise
        finally:
            self._noticed.set()
            with suppress(RuntimeError):
                self._set(f"end/{self.place.rank}", end)
            self._over.set()
            # Python aborts the process (SIGABRT) when it ends a thread that is inside the store.
            watch.join(5.0)

    def barrier(self) -> None:
        """Returns when all processes have called it as often as this one. Raises `RankLost` where one is gone, or ends
        instead."""
        self._barriers += 1
        name = f"barrier/{self._barriers}"
        self._store.add(name, 1)
        while int(self._store.add(name, 0)) < self.place.world:
            for rank in self._others:
                ended = rank not in self.absent and self._has_ended(rank)
                if ended and int(self._store.add(name, 0)) < self.place.world:  # else it passed before it ended
                    self.absent[rank] = self._failure(rank) or DeadRank(rank, "has stopped")
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raises `RankLost` where a process is known to be gone."""
        if self.absent:
            self._noticed.set()
            raise self._lost(self.absent[min(self.absent)])

    def first_dead_rank(self, *, wait: bool = True) -> DeadRank | None:
        """The first process that is gone, after an error that its loss may have caused. `wait`: give the watch time to
        notice. SIGTERM, which the launcher sends to the survivors, is ignored from then on: this process is ending."""
        self._noticed.set()
        if not wait:
            with suppress(RuntimeError):
                self._look(self._store)
        deadline = time.monotonic() + (self._grace / 2 if wait else 0.0)
        while not self.absent and time.monotonic() < deadline:
            time.sleep(self._every / 10)
        if not self.absent:
            return None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.absent[min(self.absent)]

    def is_first_alive(self) -> bool:
        """Whether this process is the first of the survivors, which reports and saves for all."""
        return all(rank in self.absent for rank in range(self.place.rank))

    def wait_for_all(self, seconds: float = _END_TIMEOUT) -> None:
        """Until every process has ended or is gone: the store may end with this one."""
        deadline = time.monotonic() + seconds
        with suppress(RuntimeError):
            while time.monotonic() < deadline and not all(
                rank in self.absent or self._has_ended(rank) for rank in range(self.place.world)
            ):
                time.sleep(0.05)

    def error_reported_elsewhere(self) -> bool:
        """For a process that isn't the main one, at its end: whether a process before it reports the error."""
        deadline = time.monotonic() + _END_TIMEOUT
        with suppress(RuntimeError):  # the store has ended with the main process
            while time.monotonic() < deadline:
                if any(self._has_ended(rank) for rank in range(self.place.rank)):
                    return True
                if self.is_first_alive():  # the processes before were killed
                    break
                time.sleep(0.05)
        return False

    # ---------------------------------------------------------------------------------------------- the watch's thread

    def _watch(self) -> None:
        store, answered = self._watched_store, time.monotonic()
        while not self._over.wait(self._every):
            try:
                store.add(f"beat/{self.place.rank}", 1)
                self._look(store)
                answered = time.monotonic()
            except RuntimeError:  # the store lives in the main process, or in the launcher
                if 0 in self._addresses and not self._alive(0):
                    self._mark_dead(0)
                elif time.monotonic() - answered > self._grace:
                    self.absent[0] = DeadRank(0, "can't be reached any more")
            if self.absent and not self._noticed.wait(self._grace) and not self._over.is_set():
                self._end()

    def _look(self, store: Any) -> None:
        """Look for processes that failed, were killed on this machine, or are silent on another."""
        for rank in self._others:
            if rank in self.absent:
                continue
            if self._has_ended(rank, store):
                if (failure := self._failure(rank, store)) is not None:
                    self.absent[rank] = failure
                continue
            if rank not in self._addresses and store.check([f"address/{rank}"]):
                self._addresses[rank] = json.loads(store.get(f"address/{rank}"))["address"]
            now, beats = time.monotonic(), int(store.add(f"beat/{rank}", 0))
            if beats != self._beats.get(rank, (-1, now))[0]:
                self._beats[rank] = beats, now
            if rank in self._addresses and not self._alive(rank):
                self._mark_dead(rank)
            elif (silent := now - self._beats[rank][1]) > self._silence:
                self.absent[rank] = DeadRank(rank, f"hasn't been heard of for {silent:.0f} seconds")

    def _has_ended(self, rank: int, store: Any = None) -> bool:
        return bool((store or self._store).check([f"end/{rank}"]))

    def _failure(self, rank: int, store: Any = None) -> DeadRank | None:
        """The failure of a process that has ended; None unless it failed by itself."""
        end = json.loads((store or self._store).get(f"end/{rank}"))
        return DeadRank(rank, f"failed: {end['message']}", end["help"]) if end["failed"] else None

    def _lost(self, gone: DeadRank) -> RankLost:
        return RankLost(f"process {gone.rank} of {self.place.world} {gone.how}", help=gone.help)

    def _alive(self, rank: int) -> bool:
        """Whether the process exists; True for one on another machine."""
        host, pid = self._addresses[rank].rsplit(" ", 1)
        if host != socket.gethostname():
            return True
        try:
            return psutil.Process(int(pid)).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def _mark_dead(self, rank: int) -> None:
        host, pid = self._addresses[rank].rsplit(" ", 1)
        self.absent[rank] = DeadRank(rank, f"({pid} on {host}) ended without a word")

    def _end(self) -> None:
        """End this process: its main thread waits inside a library, and no exception reaches it there."""
        gone = self.absent[min(self.absent)]
        with suppress(OSError, ValueError):
            if self.is_first_alive():
                sys.stderr.write(
                    f"error: {self._lost(gone).message}, and the others wait for it\nhelp: {gone.help or _HELP}\n"
                )
                sys.stderr.flush()
        os._exit(1)

    def _set(self, name: str, facts: dict[str, Any]) -> None:
        self._store.set(name, json.dumps(facts))
