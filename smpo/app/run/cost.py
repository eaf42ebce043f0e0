"""What a run cost: seconds by phase, network passes by purpose, pairs seen, peak memory, FLOPs, and joules if known.

    ledger = Ledger()
    with ledger("train"):
        with ledger("invert"): ...          # not counted as `train`: phases never overlap, so they add up

A *pass* is one picture once through the network, forwards; a backward is counted by itself, and costs about two.
The ledger is kept in the run's folder (`cost.json`) and in each checkpoint, and a resumed run adds to its checkpoint's:
work of a killed process after that is done again, and counts once.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.run.energy import EnergyMeter
from smpo.engine.monitoring.tracker import StepReport
from smpo.kinds import Objective

if TYPE_CHECKING:
    from smpo.engine.loop import Session
    from smpo.kinds import Picture
    from smpo.runs.store import RunFolder

__all__ = ["COST", "CostMeter"]

COST = "cost.json"
COST_FACT = "cost"
"""Among the facts of a checkpoint."""


@dataclass
class _Phase:
    """One that is going on. `inside`: seconds of the finished ones within it."""

    name: str
    began: float
    inside: float = 0.0


class CostMeter:
    """Counts while a run goes on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, float] = {}
        self.backwards = 0.0
        self.pairs = 0
        self.pictures = 0
        self.skipped = 0
        """Attempts at updates that overflowed in fp16 and were repeated; their passes are counted."""
        self.flop_per_pass: float | None = None
        self.peak_bytes = 0
        self.energy = EnergyMeter()
        self.queued: list[tuple[Any, Any]] = []
        """Events on the device round inversions whose time isn't known yet."""
        self._open: list[_Phase] = []
        self._joined = False
        _forget_peak()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as `phase`. What a block inside it takes is that one's, not this one's."""
        this = _Phase(phase, time.perf_counter())
        self._open.append(this)
        try:
            yield
        finally:
            self._open.pop()
            taken = time.perf_counter() - this.began
            self.seconds[phase] = self.seconds.get(phase, 0.0) + taken - this.inside
            if self._open:
                self._open[-1].inside += taken
            self.energy.tick()

    @property
    def forwards(self) -> float:
        return sum(self.passes.values())

    @property
    def training_passes(self) -> float:
        """All passes of training; a backward counts as two."""
        beside = sum(self.passes.get(name, 0.0) for name in ("sample", "diagnose"))
        return self.forwards - beside + 2 * self.backwards

    @property
    def training_tflop(self) -> float | None:
        return None if self.flop_per_pass is None else self.flop_per_pass * self.training_passes / 1e12

    def update(self, report: StepReport, objective: Objective) -> None:
        """Add an optimiser update, after which the device has finished."""
        for began, ended in self.queued:
            seconds = began.elapsed_time(ended) / 1e3
            self.seconds["invert"] = self.seconds.get("invert", 0.0) + seconds
            if self._open:
                self._open[-1].inside += seconds
        self.queued.clear()
        rows = 2 * report.pairs * report.timesteps_per_pair * objective.levels_per_pair() * (1 + report.skipped)
        asked = {
            "invert": report.metrics.get("passes", 0.0) * rows,
            "policy": rows * (2 if objective.needs_means else 1),
            "reference": rows * report.metrics.get("reference_passes", float(objective.needs_reference)),
        }
        for name, passes in asked.items():
            self.passes[name] = self.passes.get(name, 0.0) + passes
        self.backwards += rows
        self.pairs += report.pairs
        self.skipped += report.skipped
        self.energy.tick()

    def add_holdout_passes(self, passes: int) -> None:
        """Add a look at the held-out pairs."""
        self.passes["diagnose"] = self.passes.get("diagnose", 0.0) + passes

    def add_samples(self, pictures: int, *, steps: int, guidance: float) -> None:
        """Add samples, by whichever process."""
        passes = pictures * steps * (2 if guidance > 1 else 1)
        self.passes["sample"] = self.passes.get("sample", 0.0) + passes
        self.pictures += pictures

    def instrument(self, session: Session) -> None:
        """Time the inversions of `session`, and count the samples of its denoiser."""
        session.inverting = partial(self._inverting, session.denoiser.device.type)
        sample = session.denoiser.sample

        @wraps(sample)
        def counted(
            prompts: Sequence[str], seeds: Sequence[int], *, guidance: float, steps: int, **how: Any
        ) -> list[Picture]:
            with self("sample"):
                pictures = sample(prompts, seeds, guidance=guidance, steps=steps, **how)
            self.add_samples(len(pictures), steps=steps, guidance=guidance)
            return pictures

        session.denoiser.sample = counted  # type: ignore[method-assign]

    @contextmanager
    def _inverting(self, device: str) -> Iterator[None]:
        """Kernels on a GPU are only queued here: events on the device take the time, and are read after the update."""
        if device != "cuda":
            with self("invert"):
                yield
            return
        import torch

        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        try:
            yield
        finally:
            ended.record()
            self.queued.append((began, ended))

    def measure(self, session: Session) -> None:
        """FLOPs of one forward pass of one picture, counted by torch on a row of the first batch."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with suppress(Exception), torch.no_grad():  # a number that is nice to have must not end a run
            batch = next(iter(session.batches(0)))
            one = torch.zeros(1, dtype=torch.long, device=batch.mean.device)
            with FlopCounterMode(display=False) as counter:
                session.denoiser.predict(batch.mean[:1], one + 1, batch.conditioning.take(one))
            self.flop_per_pass = float(counter.get_total_flops()) or None

    def load(self, folder: RunFolder, kept: Mapping[str, Any]) -> None:
        """Add earlier costs: those in the checkpoint's facts `kept`, else those that an interrupted part of the run has
        written."""
        self._joined = True
        # What was damaged meanwhile costs its figures, not the run.
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            if COST_FACT in kept:
                self._add(kept[COST_FACT])
            elif folder.resumed:
                self._add(json.loads((folder.path / COST).read_text(encoding="utf-8")))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: phases that are going on count until now."""
        now, inside = time.perf_counter(), 0.0
        found = {**self.to_dict(), "seconds": dict(self.seconds), "passes": dict(self.passes)}
        for phase in reversed(self._open):
            taken = now - phase.began
            found["seconds"][phase.name] = found["seconds"].get(phase.name, 0.0) + taken - phase.inside - inside
            inside = taken
        return {COST_FACT: found}

    @contextmanager
    def closing(self, folder: RunFolder) -> Iterator[None]:
        """However the block is left, write the sum. An error of the block is raised, and not one of writing after
        it."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                self.close(folder)
            raise
        self.close(folder)

    def close(self, folder: RunFolder) -> Path:
        """Write the sum, earlier parts of the run included."""
        self.peak_bytes = max(self.peak_bytes, _peak())
        if not self._joined:
            self.load(folder, {})
        return folder.write_text(COST, json.dumps(self.to_dict(), indent=1) + "\n")

    def _add(self, earlier: Any) -> None:
        seconds, passes = (
            {str(name): float(value) for name, value in earlier[part].items()} for part in ("seconds", "passes")
        )
        counts = [int(earlier[name]) for name in ("pairs", "pictures", "peak_bytes")]
        skipped = int(earlier.get("skipped_updates", 0))
        backwards, flops = float(earlier["backwards"]), earlier["flop_per_pass"]
        for mine, before in ((self.seconds, seconds), (self.passes, passes)):
            for name, value in before.items():
                mine[name] = mine.get(name, 0.0) + value
        self.backwards += backwards
        self.pairs += counts[0]
        self.pictures += counts[1]
        self.skipped += skipped
        self.peak_bytes = max(self.peak_bytes, counts[2])
        self.flop_per_pass = self.flop_per_pass or (None if flops is None else float(flops))

    def to_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "passes": self.passes,
            "backwards": self.backwards,
            "training_passes": self.training_passes,
            "pairs": self.pairs,
            "pictures": self.pictures,
            "skipped_updates": self.skipped,
            "peak_bytes": self.peak_bytes,
            "flop_per_pass": self.flop_per_pass,
            "training_tflop": self.training_tflop,
            "joules": self.energy.joules,
        }

    def metrics(self) -> dict[str, float]:
        """`seconds/<phase>`, `cost/...`, for the tracker."""
        found = {f"seconds/{name}": value for name, value in self.seconds.items()}
        found |= {f"cost/passes_{name}": value for name, value in self.passes.items()}
        found |= {
            "cost/backwards": self.backwards,
            "cost/training_passes": self.training_passes,
            "cost/pairs": float(self.pairs),
            "cost/peak_gib": _peak() / 2**30,
        }
        found |= {f"cost/energy_kj_{device}": joules / 1e3 for device, joules in self.energy.joules.items()}
        return found | ({"cost/training_tflop": self.training_tflop} if self.training_tflop else {})

    def lines(self) -> list[str]:
        """The ledger for a person."""
        seconds = ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        parts = [f"{name} {value:,.0f}" for name, value in self.passes.items() if value]
        flops = "" if self.training_tflop is None else f", {_short(self.training_tflop * 1e12)}FLOP in training"
        joules = [f"{device} {value / 1e3:.3g} kJ" for device, value in self.energy.joules.items()]
        return [
            f"time       {seconds}",
            f"passes     {', '.join(parts)} forward, {self.backwards:,.0f} backward; {self.pairs:,} pairs{flops}",
            f"memory     {(self.peak_bytes or _peak()) / 2**30:.2f} GiB at the peak",
            *([f"overflow   {self.skipped:,} attempts at updates, repeated"] if self.skipped else []),
            *([f"energy     {', '.join(joules)}, whatever else ran there included"] if joules else []),
        ]


def _forget_peak() -> None:
    """Start the peak afresh, so that runs of one process after another each have their own."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    """Bytes: of the GPU where this process has used one, else of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and (held := int(torch.cuda.max_memory_allocated())):
        return held
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kibibytes * (1 if sys.platform == "darwin" else 1024))


def _short(number: float) -> str:
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g} "
