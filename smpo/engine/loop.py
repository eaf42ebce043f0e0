"""The training loop. It knows no algorithm: what is inverted, compared and smoothed is decided by the components.

`fit` is a generator of step reports; logging, checkpoints, previews, pruning and stopping are its caller's business.
Nothing random lives here: order, timesteps and noise are functions of (seed, sample position), so a run that is
interrupted after update k and continued from there ends where an uninterrupted one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smpo.engine.alarms import NonFiniteLoss, assert_starts_at_reference
from smpo.engine.ema import Average
from smpo.engine.events import StepReport
from smpo.engine.metrics import Meter
from smpo.engine.rates import LearningRate
from smpo.engine.step import PairOutcome, Settings, pair_step
from smpo.kinds import Denoiser, Draws, Inversion, Objective, PairBatch

__all__ = ["Session", "fit"]


@dataclass
class Session:
    """Live objects of one training run, put together by `smpo.app.assemble`."""

    denoiser: Denoiser
    objective: Objective
    inversion: Inversion
    optimiser: torch.optim.Optimizer
    rate: LearningRate
    accelerator: Any
    batches: Callable[[int], Iterable[PairBatch]]
    """The micro-batches of an update for this process."""
    draws: Callable[[Tensor], Draws]
    """Random numbers for samples at these positions of the stream."""
    settings: Settings
    steps: int
    pairs_per_update: int
    """Over all processes."""
    clip: float | None = None
    average: Average | None = None
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def fit(session: Session, start: int = 0) -> Iterator[StepReport]:
    """Run updates `start .. steps-1`, yielding a report after each. Raises `NonFiniteLoss` before harm is done."""
    accelerator, optimiser = session.accelerator, session.optimiser
    share = session.pairs_per_update // accelerator.num_processes
    for step in range(start, session.steps):
        began, meter = time.perf_counter(), Meter(accelerator)
        torch.manual_seed(
            session.settings.seed * 1_000_003 + step
        )  # adapter dropout, the only draw not keyed by sample
        session.rate.apply(optimiser, step)

        batches = list(session.batches(step))
        for number, batch in enumerate(batches, 1):
            with _sync(session, last=number == len(batches)):
                outcome = _forward(session, batch)
                if step == start == 0 and number == 1:
                    assert_starts_at_reference(session.objective, outcome)
                session.scaler.scale(outcome.loss.sum() / share).backward()
            meter.add(batch, outcome)

        meter.raise_unless_finite(step)
        norm = _clipped(session)
        if torch.isfinite(norm) or session.scaler.is_enabled():  # the scaler itself skips what overflowed
            session.scaler.step(optimiser)
            session.scaler.update()
        else:
            raise NonFiniteLoss(step, "the gradient's norm is not finite", meter.suspects())
        optimiser.zero_grad(set_to_none=True)
        if session.average is not None:
            session.average.update(step)

        seconds = time.perf_counter() - began
        metrics = {**meter.means(), "grad_norm": float(norm), "lr": session.rate.at(step)}
        yield StepReport(step=step + 1, metrics=metrics, seconds=seconds, pairs=session.pairs_per_update)


def _forward(session: Session, batch: PairBatch) -> PairOutcome:
    return pair_step(
        batch,
        session.draws(batch.position),
        denoiser=session.denoiser,
        inversion=session.inversion,
        objective=session.objective,
        settings=session.settings,
    )


def _sync(session: Session, *, last: bool) -> Any:
    """Gradients travel between processes once an update, with its last micro-batch."""
    import contextlib

    return contextlib.nullcontext() if last else session.accelerator.no_sync(session.denoiser.policy)


def _clipped(session: Session) -> Tensor:
    """Global norm of the gradient before clipping; clips in place."""
    session.scaler.unscale_(session.optimiser)
    limit = float("inf") if session.clip is None else session.clip
    return torch.nn.utils.clip_grad_norm_(session.parameters, limit)
