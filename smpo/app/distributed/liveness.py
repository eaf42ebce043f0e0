"""What the processes of a run tell each other outside of training: where its folder is, that they live, how they ended.

The main process plans, refuses, and opens the folder; the others wait for its word. They meet in the key-value store
that every launcher of torch provides, before any of them sets up a network for gradients.

During training a process that is gone leaves the others waiting for its gradients: with gloo until the connection
breaks, with NCCL for as long as its timeout, which is days here because the main process may encode for that long. So
each keeps watch over the others. On one machine a process that was killed is seen at once, by its number; on other
machines by its silence.
"""

from __future__ import annotations

import json
import os
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

from smpo.app.distributed.environment import PRESENT, RankInfo, export_environment
from smpo.errors import RunError, SmpoError

__all__ = ["DeadRank", "Liveness", "RankLost", "init_process_group_after_restart"]

_PATIENCE = timedelta(minutes=30)
"""For machines that start late."""
_HEARD = 60.0
"""Seconds to wait for others that are about to end too."""


class RankLost(RunError):
    """Another process of the run is gone, and with it what this one was waiting for."""


@dataclass(frozen=True)
class DeadRank:
    """A process that is gone: how, and what might be done."""

    rank: int
    how: str
    help: str | None = None


def init_process_group_after_restart(*, cpu: bool, patience: timedelta) -> None:
    """Open the process group where torchrun has started all processes again; otherwise accelerate does it.

    torchrun keeps one store over restarts, that of its rendezvous, and a group writes its
    addresses under the same names each time: a process that is quicker than another reads where that one listened
    before it died, and is refused. Names of their own for each attempt mend that.
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

    `silence`: seconds after which a process on another machine that isn't heard of counts as gone; `grace`: seconds
    that this one then has to notice by itself, save what it can and end, before it is ended.
    """

    def __init__(
        self, place: RankInfo, *, silence: float = 300.0, grace: float = 20.0, every: float = 1.0
    ) -> None:
        from torch.distributed.rendezvous import rendezvous

        export_environment(place)
        self.place = place
        self._silence, self._grace = silence, grace
        self._every = every * max(1, place.world // 16)  # the store answers all of them
        self._store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        self._prefix = f"smpo/{place.restarts}/"
        self._here = f"{socket.gethostname()} {os.getpid()}"
        self._who: dict[int, str] = {}
        self._heard: dict[int, tuple[int, float]] = {}
        self._noticed, self._over = threading.Event(), threading.Event()
        self._met = 0
        self.absent: dict[int, DeadRank] = {}
        """Those who are known to be gone."""

    # ------------------------------------------------------------------------------------------- before there is a run

    def begin(self, folder: Path, *, resumed: bool) -> None:
        """Main process: this is the run."""
        self._set("begin", {"folder": str(folder.absolute()), "resumed": resumed})

    def abort_all(self, code: int) -> None:
        """Main process: there will be no run, and it was said why. Returns when all have heard it, as the store may end
        with this process."""
        self._set("begin", {"code": code})
        deadline = time.monotonic() + _HEARD
        while self._store.add(self._prefix + "heard", 0) < self.place.world - 1:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def receive_run(self) -> tuple[Path, bool] | int:
        """Other processes: the run's folder and whether it is resumed, or the code to end with."""
        said = json.loads(self._store.get(self._prefix + "begin"))
        self._store.add(self._prefix + "heard", 1)
        return (Path(said["folder"]), bool(said["resumed"])) if "folder" in said else int(said["code"])

    # ---------------------------------------------------------------------------------------------------- during a run

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the work. How it ends is told to the others; an error that comes of somebody's absence becomes
        `RankLost`, which says whose."""
        self._set(f"who/{self.place.rank}", {"who": self._here})
        watch = threading.Thread(target=self._watch, name="roll call", daemon=True)
        watch.start()
        _tell_launcher(self.place.rank)
        try:
            yield
        except RankLost as error:
            self._leave("lost", error.message)
            raise
        except SmpoError as error:
            self._leave("failed", error.message, error.help)
            raise
        except KeyboardInterrupt:
            self._leave("stopped")
            raise
        except Exception as error:
            if (gone := self.first_dead_rank()) is None:
                self._leave("failed", f"{type(error).__name__}: {error}")
                raise
            lost = self._lost(gone)
            self._leave("lost", lost.message)
            raise lost from error
        except BaseException:
            self._leave("failed")
            raise
        else:
            self._leave("done")
        finally:
            self._over.set()
            # A thread that Python ends while it is inside the store takes the process with it (SIGABRT).
            watch.join(5.0)

    def barrier(self) -> None:
        """Returns when all processes have called it as often as this one. Raises `RankLost` where one is gone, or ends
        instead."""
        self._met += 1
        here = f"{self._prefix}meet/{self._met}"
        self._store.add(here, 1)
        while int(self._store.add(here, 0)) < self.place.world:
            for rank in range(self.place.world):
                if rank == self.place.rank or rank in self.absent or not self._has_ended(rank):
                    continue
                if int(self._store.add(here, 0)) < self.place.world:  # else it came, and went on to its end
                    self.absent[rank] = self._ended(rank) or DeadRank(rank, "has stopped", _HELP)
            self.check()
            time.sleep(0.05)

    def check(self) -> None:
        """Raises `RankLost` where a process is known to be gone: for between two pieces of work in which nobody is
        waited for."""
        if self.absent:
            self._noticed.set()
            raise self._lost(self.absent[min(self.absent)])

    def first_dead_rank(self) -> DeadRank | None:
        """The first process that is gone, when work here fails for want of another: looked for until the watch, which
        is told by it that this process has noticed, can be sure."""
        self._noticed.set()
        deadline = time.monotonic() + self._grace / 2
        while not self.absent and time.monotonic() < deadline:
            time.sleep(self._every / 10)
        return self.absent[min(self.absent)] if self.absent else None

    def is_first_alive(self) -> bool:
        """Whether this process is the first of those who are left, and so speaks and saves for all."""
        return all(rank in self.absent for rank in range(self.place.rank))

    def wait_for_all(self, seconds: float = _HEARD) -> None:
        """Until every process has ended or is gone: the store may end with this one."""
        deadline = time.monotonic() + seconds
        with suppress(RuntimeError):
            while time.monotonic() < deadline and not all(
                rank in self.absent or self._has_ended(rank) for rank in range(self.place.world)
            ):
                time.sleep(0.05)

    def error_reported_elsewhere(self) -> bool:
        """For a process that isn't the main one, at its end: whether somebody before it has said, or will say, why."""
        deadline = time.monotonic() + _HEARD
        while time.monotonic() < deadline:
            try:
                if any(self._has_ended(rank) for rank in range(self.place.rank)):
                    return True
            except (
                RuntimeError
            ):  # the store has ended with the main process, and torch logs each time it is asked
                return False
            if self.is_first_alive():  # those before it are gone without a word
                return False
            time.sleep(0.05)
        return False

    def _watch(self) -> None:
        store, since = self._store.clone(), time.monotonic()
        while not self._over.wait(self._every):
            try:
                store.add(f"{self._prefix}beat/{self.place.rank}", 1)
                for rank in range(self.place.world):
                    if rank != self.place.rank and rank not in self.absent:
                        self._look_for(rank, store)
                since = time.monotonic()
            except RuntimeError:  # the store lives in the main process, or in the launcher
                self._look_for_main(time.monotonic() - since)
            if self.absent and not self._noticed.wait(self._grace) and not self._over.is_set():
                self._end()

    def _look_for(self, rank: int, store: Any) -> None:
        if self._has_ended(rank, store):
            if (failed := self._ended(rank, store)) is not None:
                self.absent[rank] = failed
            return
        who = f"{self._prefix}who/{rank}"
        if rank not in self._who and store.check([who]):
            self._who[rank] = json.loads(store.get(who))["who"]
        if rank in self._who and not self._alive(rank):
            self._mark_dead(rank)
            return
        now, beats = time.monotonic(), int(store.add(f"{self._prefix}beat/{rank}", 0))
        before, when = self._heard.setdefault(rank, (beats, now))
        if beats != before:
            self._heard[rank] = (beats, now)
        elif now - when > self._silence:
            self.absent[rank] = DeadRank(rank, f"hasn't been heard of for {now - when:.0f} seconds", _HELP)

    def _has_ended(self, rank: int, store: Any = None) -> bool:
        return bool((store or self._store).check([f"{self._prefix}end/{rank}"]))

    def _ended(self, rank: int, store: Any = None) -> DeadRank | None:
        """What a process that has ended said of it; None unless it failed."""
        end = json.loads((store or self._store).get(f"{self._prefix}end/{rank}"))
        return DeadRank(rank, f"failed: {end['words']}", end["help"]) if end["how"] == "failed" else None

    def _lost(self, gone: DeadRank) -> RankLost:
        return RankLost(f"process {gone.rank} of {self.place.world} {gone.how}", help=gone.help)

    def _look_for_main(self, seconds: float) -> None:
        """The store is gone: with the main process, as a rule."""
        if 0 in self._who and not self._alive(0):
            self._mark_dead(0)
        elif seconds > self._grace:
            self.absent[0] = DeadRank(0, "can't be reached any more", _HELP)

    def _alive(self, rank: int) -> bool:
        """Whether the process exists; taken for granted on other machines."""
        host, number = self._who[rank].rsplit(" ", 1)
        if host != socket.gethostname():
            return True
        with suppress(OSError, IndexError):  # one that has ended and isn't buried yet still has its number
            return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
        with suppress(PermissionError):
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                return False
        return True

    def _mark_dead(self, rank: int) -> None:
        host, number = self._who[rank].rsplit(" ", 1)
        self.absent[rank] = DeadRank(rank, f"({number} on {host}) ended without a word", _HELP)

    def _end(self) -> None:
        """Nobody listens: the work waits inside a library for what will never come."""
        gone = self.absent[min(self.absent)]
        with suppress(OSError, ValueError):
            if self.is_first_alive():
                sys.stderr.write(
                    f"error: process {gone.rank} of {self.place.world} {gone.how}, and the others wait for it\n"
                    f"help: {gone.help or _HELP}\n"
                )
                sys.stderr.flush()
        os._exit(1)

    def _leave(self, how: str, words: str = "", help: str | None = None) -> None:
        self._noticed.set()
        with suppress(RuntimeError):
            self._set(f"end/{self.place.rank}", {"how": how, "words": words, "help": help})

    def _set(self, name: str, facts: dict[str, Any]) -> None:
        self._store.set(self._prefix + name, json.dumps(facts))


def _tell_launcher(rank: int) -> None:
    """That this process can be missed from now on, and misses others."""
    with suppress(OSError, ValueError):
        os.write(int(os.environ.pop(PRESENT, "")), bytes([rank]))


_HELP = "killed, or out of memory? (`dmesg` on its machine); go on from the last checkpoint with `--resume`"
