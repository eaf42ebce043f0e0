"""The matrix of settings: one small run each on the pretended GPU, all in one process.

`lines()` are those of settings.txt and one for each objective, inversion and optimiser of the registry; `Matrix.run`
trains and evaluates small.yaml with one of them and counts the device's calls. tests/pretended runs them all,
benchmarks/pretended_gpu.py writes their results.
"""

from __future__ import annotations

import contextlib
import gc
import io
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

__all__ = ["SPEC", "Counts", "Matrix", "Outcome", "lines"]

HERE = Path(__file__).parent
SPEC = HERE / "small.yaml"
KINDS = ("objective", "inversion", "optimiser")
SLOTS = {"optimiser": "train.optimiser"}
"""Where a kind's slot has another name than the kind."""


def lines() -> list[str]:
    """All lines of settings, those of the file first. A new component needs no edit here."""
    written = (line.strip() for line in (HERE / "settings.txt").read_text(encoding="utf-8").splitlines())
    return [*(line for line in written if line and not line.startswith("#")), *_components()]


def _components() -> Iterator[str]:
    """Every component and card of `KINDS` that can be brought together with the small model."""
    import smpo.components  # noqa: F401 -- fills the registry
    from smpo.registry.cards import Cards, builtin_root
    from smpo.registry.component import REGISTRY
    from smpo.registry.expand import Catalogue
    from smpo.registry.plugins import own

    catalogue = Catalogue(own(REGISTRY), Cards([builtin_root()]))
    for kind in KINDS:
        yield from (f"{SLOTS.get(kind, kind)}={name}" for name in catalogue.names(kind))


@dataclass(frozen=True)
class Counts:
    """Of a stretch of a run: kernels launched, waits of the host, copies up to the device and down from it."""

    launches: int
    waits: int
    up: int
    down: int

    @classmethod
    def between(cls, before: dict[str, int], after: dict[str, int]) -> Counts:
        import pretended

        def more(name: str) -> int:
            return after.get(name, 0) - before.get(name, 0)

        waits = pretended.waits(after) - pretended.waits(before)
        return cls(more("launch"), waits, more("h2d"), more("d2h"))


@dataclass
class Outcome:
    """One run. Memory in bytes; `planned`: the peak of training by `smpo plan`, None where it knows no network."""

    settings: str
    seconds: float = 0.0
    error: list[str] = field(default_factory=list)
    """The error and the last line of smpo that it went through; empty after success."""
    run: Counts | None = None
    update: Counts | None = None
    """The last update."""
    allocated: int = 0
    reserved: int = 0
    """Peaks of the whole run."""
    training_allocated: int = 0
    training_reserved: int = 0
    """Peaks of its updates."""
    workspaces: int = 0
    """cuBLAS's part of these: 34 MB for each thread that multiplies, the autograd's too, whatever the network."""
    planned: int | None = None

    @property
    def passed(self) -> bool:
        return not self.error

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


@dataclass
class Matrix:
    """Runs that share a folder: caches of one are used by the next."""

    folder: Path

    def run(self, line: str) -> Outcome:
        """Train and evaluate small.yaml with these settings. The outcome holds an error, if there was one."""
        import pretended
        import torch

        settings = [
            f"runtime.runs={self.folder / 'runs'}",
            f"runtime.cache={self.folder / 'cache'}",
            *(shlex.split(line) if line != "-" else ()),
        ]
        outcome = Outcome(line)
        gc.collect()
        gc.freeze()  # what is loaded by now stays loaded: smpo's own collections need not look at it
        torch.cuda.empty_cache()  # or what the last run left there would count as this one's
        torch.cuda.reset_peak_memory_stats()
        before, began = pretended.counts(), time.perf_counter()
        with _watched(outcome):
            outcome.error = _smpo("run", str(SPEC), "--quiet", "--again", *(f"--set={one}" for one in settings))
        outcome.seconds = time.perf_counter() - began
        outcome.run = Counts.between(before, pretended.counts())
        outcome.allocated = max(outcome.training_allocated, torch.cuda.max_memory_allocated(), outcome.allocated)
        outcome.reserved = max(outcome.training_reserved, torch.cuda.max_memory_reserved(), outcome.reserved)
        return outcome


@contextlib.contextmanager
def _watched(outcome: Outcome) -> Iterator[None]:
    """Count each update, and the memory of the updates apart from that of the rest."""
    import pretended
    import torch

    from smpo.engine import loop

    fit = loop.fit

    def watched(*given: Any, **named: Any) -> Iterator[Any]:
        outcome.allocated = torch.cuda.max_memory_allocated()
        outcome.reserved = torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        updates = fit(*given, **named)
        while True:
            before = pretended.counts()
            report = next(updates, None)
            outcome.training_allocated = torch.cuda.max_memory_allocated()
            outcome.training_reserved = torch.cuda.max_memory_reserved()
            if report is None:
                outcome.workspaces = _workspaces()
                return
            outcome.update = Counts.between(before, pretended.counts())
            yield report

    with mock.patch.object(loop, "fit", watched):
        yield


def _workspaces() -> int:
    """Give cuBLAS's workspaces back, as torch's tests do; returns their bytes."""
    import torch

    before = torch.cuda.memory_allocated()
    torch._C._cuda_clearCublasWorkspaces()
    return before - torch.cuda.memory_allocated()


def _smpo(*words: str) -> list[str]:
    """Run the command line here; empty, or the error."""
    from smpo.cli.main import main

    printed = io.StringIO()
    streams = (contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed))
    try:
        with mock.patch.object(sys, "argv", ["smpo", *words]), streams[0], streams[1]:
            main()
    except SystemExit as end:
        if not end.code:
            return []
        return [one for one in printed.getvalue().splitlines() if one.strip()][-2:] or [f"exit code {end.code}"]
    except Exception as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "/smpo/" in one.filename]
        first = str(error).splitlines()[0] if str(error) else ""
        lines = [f"{one.filename}:{one.lineno}: {one.line}" for one in frames[-1:]]
        return [f"{type(error).__name__}: {first}", *lines]
    return []
