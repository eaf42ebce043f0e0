"""The training loop. It knows no algorithm: what is inverted, compared and smoothed is decided by the components.

Inside an update no number is read from the device: work is queued, and metrics are read once, together with the verdict
whether the update may be applied. Processes synchronise once an update too, so none waits for the slowest pair.

`fit` is a generator of step reports; logging, checkpoints, previews, pruning and stopping are its caller's business.
Nothing random lives here: order, timesteps and noise are functions of (seed, sample position), so a run that is
interrupted after update k and continued from there ends where an uninterrupted one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.forward_batches import ForwardBatches
from smpo.engine.inversion_batches import parts, windows
from smpo.engine.learning_rate import LearningRate
from smpo.engine.monitoring.alerts import assert_starts_at_reference
from smpo.engine.monitoring.metrics import Meter
from smpo.engine.monitoring.operators import unlike_operator
from smpo.engine.monitoring.tracker import StepReport
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.engine.out_of_memory import MicroBatcher
from smpo.engine.overflow import Attempt, Overflows
from smpo.engine.sharding import full_tensor, no_grad_sync
from smpo.engine.step import InvertedBatch, ReferenceBatch, compute_loss, invert_batch, run_policy, run_reference
from smpo.kinds import Denoiser, Draws, Objective, PairBatch, ReferenceCache
from smpo.kinds.live import Invert

__all__ = ["Session", "fit"]


@dataclass
class Session:
    """Live objects of one training run, put together by `smpo.app.build.build`."""

    denoiser: Denoiser
    objective: Objective
    inversion: Invert
    optimiser: torch.optim.Optimizer
    learning_rate: LearningRate
    accelerator: Any
    batches: Callable[[int], Iterable[PairBatch]]
    """The micro-batches of an update for this process."""
    draws: Callable[[Tensor], Draws]
    """Random numbers for samples at these positions of the stream."""
    settings: StepConfig
    steps: int
    pairs_per_update: int
    """Over all processes."""
    clip: float | None = None
    average: ExponentialMovingAverage | None = None
    window: int | None = None
    """Pairs that are inverted together; None: all of an update."""
    reference_cache: ReferenceCache | None = None
    """Outputs of the reference by micro-batch; None: it runs every time."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    overflows: Overflows = field(default_factory=Overflows)
    """Updates that were applied, and attempts that the scaler's gradients overflowed in."""
    micro_batcher: MicroBatcher = field(default_factory=MicroBatcher)
    """Pairs that go through the networks together."""
    ready: Callable[[int], None] | None = None
    """Returns when the pairs of an update are scored and encoded; collective. None: all are."""

    inverting: Callable[[], AbstractContextManager[None]] = nullcontext
    """Around each inversion, to take its time."""

    skipped: set[int] = field(default_factory=set)
    """Updates, counted from 0, that are passed over."""
    applied: int | None = None
    """Updates that the weights hold; None before training, and while they are being changed."""

    busy: bool = False
    """Whether gradients are being computed: the update could be let go of without harm."""

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def discard_gradients(self) -> None:
        """Let go of an update that was begun and isn't applied."""
        self.optimiser.zero_grad(set_to_none=True)
        self.overflows.abandon(self.scaler)


def fit(session: Session, start: int = 0) -> Iterator[StepReport]:
    """Run updates `start .. steps-1`, yielding a report after each. Raises `NonFiniteLoss` before harm is done, and
    `OutOfMemory` when not even a single pair fits."""
    optimiser, visits = session.optimiser, session.settings.timesteps
    session.applied = start
    undo = partial(optimiser.zero_grad, set_to_none=True)
    for step in range(start, session.steps):
        if step in session.skipped:
            continue
        if session.ready is not None:
            session.busy = True
            try:
                session.ready(step)
            finally:
                session.busy = False
        began = time.perf_counter()
        session.learning_rate.apply(optimiser, step)
        attempt = partial(_attempt, session, step, first=step == start == 0)
        metrics, norm, _ = session.overflows.finite(step, attempt, session.scaler, undo)
        if session.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(session.parameters, session.clip, norm)
        session.applied = None
        optimiser.step()  # not `scaler.step`: that the gradients are finite is known here
        session.scaler.update()
        undo()
        if session.average is not None:
            session.average.update(step)
        session.applied = step + 1

        seconds = time.perf_counter() - began
        metrics["lr"] = session.learning_rate.at(step)
        yield StepReport(step + 1, metrics, seconds, session.pairs_per_update, visits, session.overflows.latest)


def _attempt(session: Session, step: int, *, first: bool) -> Attempt:
    """The unscaled gradients of an update, and its numbers; in fp16 they may have overflowed."""
    undo = partial(session.optimiser.zero_grad, set_to_none=True)
    session.busy = True
    try:
        meter = session.micro_batcher.retry_on_oom(step, partial(_gradients, session, step, first=first), undo)
    finally:
        session.busy = False
    norm = _norm(session)
    scale = session.scaler.scale(norm.new_ones(())) if session.scaler.is_enabled() else None
    return Attempt(meter.settle(step, norm, scale=scale), norm, meter.suspects)


def _gradients(session: Session, step: int, *, first: bool) -> Meter:
    """Add up the gradients of an update, micro-batch by micro-batch."""
    share = session.pairs_per_update // session.accelerator.num_processes * session.settings.timesteps
    meter = Meter(session.accelerator, session.settings, recalled=session.reference_cache is not None)
    torch.manual_seed(session.settings.seed * 1_000_003 + step)  # dropout, the only draw not keyed by sample
    batches = list(session.batches(step))
    kept, means = _update_means(session, batches)
    for noisy in kept or _inverted(session, batches):
        with _sync(session, last=meter.pairs + len(noisy.batch) == share):
            prepared = noisy if isinstance(noisy, ReferenceBatch) else _with_reference(session, noisy)
            outcome = compute_loss(prepared, run_policy(prepared, session.denoiser), session.objective, means)
            if first and not meter.pairs:
                unlike = partial(unlike_operator, prepared, session.denoiser)
                assert_starts_at_reference(session.objective, outcome, unlike)
            session.scaler.scale(outcome.loss.sum() / share).backward()
        meter.add(prepared.batch, outcome)
    return meter


def _inverted(session: Session, batches: Sequence[PairBatch]) -> Iterator[InvertedBatch]:
    """Micro-batches with their noise, of the size in which they came; windows of them are inverted together."""
    size = session.micro_batcher.of(max(map(len, batches)))
    for window in windows(batches, session.window):
        with session.inverting():
            noisy = invert_batch(
                window,
                session.draws(window.position),
                denoiser=session.denoiser,
                inversion=session.inversion,
                objective=session.objective,
                settings=replace(session.settings, passes=_passes(session, size)),
            )
        yield from parts(noisy, size)


def _passes(session: Session, pairs: int) -> ForwardBatches:
    """As many images at once as in a pass with gradients, unless told; not more once memory ran out."""
    told, usual = session.settings.passes, 2 * pairs * session.objective.levels_per_pair()
    rows = told.rows or usual
    return replace(told, rows=min(rows, usual) if session.micro_batcher.short else rows)


def _with_reference(session: Session, noisy: InvertedBatch) -> ReferenceBatch:
    return run_reference(noisy, session.denoiser, session.objective, session.reference_cache)


def _update_means(session: Session, batches: Sequence[PairBatch]) -> tuple[list[ReferenceBatch], Mapping[str, Tensor]]:
    """What a loss needs to know of the whole update (KTO's z0), from a pass of the policy without gradients.

    The inverted latents are kept for the second pass: they are small beside activations, and dear.
    """
    if not session.objective.needs_means:
        return [], {}
    kept, sums = [], dict[str, Tensor]()
    with torch.no_grad():
        for noisy in _inverted(session, batches):
            kept.append(_with_reference(session, noisy))
            seen = run_policy(kept[-1], session.denoiser)
            for name, values in session.objective.batch_means(seen, noisy.batch.p).items():
                sums[name] = sums.get(name, 0) + values.sum()
    reduce = session.accelerator.reduce
    pairs = session.pairs_per_update * session.settings.timesteps
    return kept, {name: reduce(total, reduction="sum") / pairs for name, total in sums.items()}


def _sync(session: Session, *, last: bool) -> Any:
    """Gradients travel between processes once an update, with its last micro-batch."""
    return nullcontext() if last else no_grad_sync(session.accelerator, session.denoiser.policy)


def _norm(session: Session) -> Tensor:
    """Global norm of the gradient. Nothing is clipped before it is known to be a number: clipping by one that isn't
    would leave nothing to examine."""
    session.scaler.unscale_(session.optimiser)
    return full_tensor(torch.nn.utils.get_total_norm([p.grad for p in session.parameters if p.grad is not None]))
