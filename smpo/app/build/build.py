"""From a spec to live objects: the one place where declarations meet weights, pairs and devices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from smpo.app.build.device import accelerator_of, live_runtime
from smpo.app.build.inversion_cache import cached_inversion
from smpo.app.build.labels import Labels, check_labels
from smpo.app.build.live import LiveRun, trainable_parameters
from smpo.app.build.portions import updates_together
from smpo.app.build.preparation import Preparation
from smpo.app.distributed.cache_workers import work_split
from smpo.data.cache.cache_facts import save_facts
from smpo.data.pairs.holdout import held_out
from smpo.data.stream.buckets import Buckets, bucketed
from smpo.data.stream.loader import PairLoader, Stream
from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.forward_batches import ForwardBatches
from smpo.engine.learning_rate import LearningRate
from smpo.engine.loop import Session
from smpo.engine.noise_and_timesteps import StepConfig, inversion_cost
from smpo.engine.out_of_memory import MicroBatcher
from smpo.engine.sharding import full_tensor, gather, shard
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec, TrainSpec
from smpo.kinds import Denoiser, PairTable, Runtime
from smpo.maths.draws import PositionDraws

if TYPE_CHECKING:
    from smpo.app.distributed.liveness import Liveness

__all__ = [
    "build_run",
    "unshard",
]

Progress = Callable[[str, int, int], None]


def build_run(
    spec: ExperimentSpec,
    *,
    report: Path | None,
    progress: Progress,
    say: Callable[[str], None],
    clock: Callable[[str], AbstractContextManager[None]] = lambda phase: nullcontext(),
    liveness: Liveness | None = None,
) -> LiveRun:
    """Load the model and the pairs, score, smooth and encode what the first updates need (`runtime.prepare`), and build
    the optimiser. `clock` times the phases `score` and `encode`; caches make them short.

    In a run of several processes the main one reads new data, and all compute missing scores and encoded rows together.
    """
    runtime = live_runtime(spec)
    accelerator = accelerator_of(runtime, say)
    denoiser = spec.model.load(runtime)
    ranks = work_split(accelerator, liveness)
    with ranks.leader_first():
        table = spec.data.load(runtime, report if ranks.is_leader else None)
    labels = Labels(spec, table, runtime, progress, ranks)
    with clock("score"):
        if spec.scores == "all":
            labels.ensure(range(len(table)))
        held = held_out(table, spec.train.holdout, labels.p, labels.ensure)
    loader = PairLoader(
        table, labels.p, denoiser, _stream(spec),
        cache=runtime.cache, encode_batch=runtime.batch, rows=held.trained, buckets=_buckets(spec, table),
        workers=runtime.workers,
        dtype=torch.float16 if spec.train.halves else torch.float32,
    )  # fmt: skip
    preparation = Preparation(
        loader, labels, steps=spec.train.steps, together=updates_together(spec),
        clock=clock, progress=progress, team=ranks,
    )  # fmt: skip
    preparation.label(0)
    p, stats = labels.p.clone(), labels.stats
    if accelerator.is_main_process:
        _save_cache_facts(spec, runtime, table, denoiser.encoder_key, labels.key)
    check_labels(spec, p, say)
    if spec.runtime.prepare == "first":
        preparation.all()
    else:
        preparation.until(0)

    policy = _policy(spec, denoiser, runtime, accelerator)
    room = MicroBatcher(spec.runtime.micro_batch, alone=accelerator.num_processes == 1, say=say)
    settings = _step_config(spec, denoiser)
    inversion, reference_cache = cached_inversion(spec, denoiser, table, runtime)
    session = Session(
        denoiser=denoiser,
        objective=spec.objective,
        inversion=inversion,
        optimiser=policy.optimiser,
        learning_rate=_learning_rate(spec.train),
        accelerator=accelerator,
        batches=lambda step: loader.batches(
            step, accelerator.process_index, accelerator.num_processes,
            lambda places: inversion_cost(settings, places), most=room.pairs,
        ),
        draws=lambda position: PositionDraws(spec.train.seed, position, denoiser.device),
        settings=settings,
        steps=spec.train.steps,
        pairs_per_update=spec.train.batch,
        clip=spec.train.clip,
        average=policy.average,
        window=spec.runtime.window,
        reference_cache=reference_cache,
        scaler=torch.amp.GradScaler(runtime.device, enabled=spec.train.precision == "fp16"),
        micro_batcher=room,
        ready=preparation.until if spec.runtime.prepare == "ahead" else None,
    )  # fmt: skip
    return LiveRun(
        session, table, loader, runtime, labels.key, stats, p, held, policy.parameters, policy.sharded,
        policy.on_weights_changed,
    )  # fmt: skip


def _stream(spec: ExperimentSpec) -> Stream:
    """The order, augmentation and size of the micro-batches."""
    return Stream(
        seed=spec.train.seed,
        batch=spec.train.batch,
        micro_batch=spec.runtime.micro_batch,
        flip=spec.train.flip,
        crop=spec.train.crop,
        prompt_dropout=spec.train.prompt_dropout,
        sampling=spec.objective.sampling(),
        unconditional=spec.inversion.needs_unconditional,
    )


class _Policy(NamedTuple):
    """The trained parameters by name, with their optimiser and moving average. `on_weights_changed`: after a change of
    sharded weights."""

    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    average: ExponentialMovingAverage | None
    sharded: bool
    on_weights_changed: Callable[[], None]


def _policy(spec: ExperimentSpec, denoiser: Denoiser, runtime: Runtime, accelerator: Any) -> _Policy:
    """Shard the policy (FSDP) or wrap it (DDP) where there are several processes, and build its optimiser."""
    world = accelerator.num_processes
    if sharded := spec.runtime.sharding == "fsdp" and world > 1:
        shard(denoiser.policy, runtime.device, world)
    changed = partial(gather, denoiser.policy) if sharded else _nothing
    parameters = trainable_parameters(denoiser.policy)
    optimiser = spec.train.optimiser.build(parameters.values(), spec.train.lr)
    average = ExponentialMovingAverage(parameters, spec.train.ema, changed) if spec.train.ema else None
    if sharded:
        optimiser.register_step_post_hook(lambda *_: changed())
        changed()
    elif world > 1:
        denoiser.policy = accelerator.prepare_model(denoiser.policy)
    return _Policy(parameters, optimiser, average, sharded, changed)


def _step_config(spec: ExperimentSpec, denoiser: Denoiser) -> StepConfig:
    train = spec.train
    return StepConfig(
        seed=train.seed,
        t_min=train.t_min,
        t_max=len(denoiser.schedule.alphas_cumprod) - 1 if train.t_max is None else train.t_max,
        posterior=train.posterior == "sample",
        timesteps=train.timesteps_per_pair,
        strata=train.batch if train.stratified else None,
        passes=ForwardBatches(spec.runtime.inversion_batch, spec.runtime.even_batches),
    )


def unshard(spec: ExperimentSpec, live: LiveRun) -> None:
    """Give the main process a whole policy (of the moving average, if there is one), to be saved. Collective; without
    effect where nothing is sharded."""
    if not live.sharded:
        return
    session = live.session
    source = live.parameters if session.average is None else session.average.shadow
    weights = {name: full_tensor(tensor.detach()).cpu() for name, tensor in source.items()}
    if session.accelerator.is_main_process:
        session.denoiser = spec.model.load(live.runtime)
        live.parameters = trainable_parameters(session.denoiser.policy)
        with torch.no_grad():
            for name, parameter in live.parameters.items():
                parameter.copy_(weights[name])
    session.average, live.sharded = None, False


def _nothing() -> None:
    """Weights that aren't sharded have no copy to refresh."""


def _buckets(spec: ExperimentSpec, table: PairTable) -> Buckets | None:
    """The size of each pair's images; None where all are squares."""
    resolution = spec.model.facts().resolution
    if not spec.data.bucketed:
        return None
    if resolution is None:
        raise RunError(
            "sizes of buckets follow from the resolution, and the model's files don't tell it",
            help="set `model.resolution`, such as `--set model.resolution=1024`",
        )
    return bucketed(table, spec.data.sizes(resolution), resolution)


def _save_cache_facts(
    spec: ExperimentSpec, runtime: Runtime, table: PairTable, encoders: str, scorer: str | None
) -> None:
    """Save the keys of these recipes' results in the caches, for the next plan."""
    prompts = table.report.get("prompts") or len({table[row].prompt for row in range(len(table))})
    facts: dict[str, Any] = {"digest": table.digest, "pairs": len(table), "prompts": prompts}
    if buckets := _buckets(spec, table):
        facts["buckets"] = {str(number): count for number, count in buckets.counts().items()}
    save_facts(runtime.cache, spec.data, facts)
    save_facts(runtime.cache, spec.model, {"encoders": encoders})
    if spec.reward is not None and scorer is not None:
        save_facts(runtime.cache, spec.reward, {"key": scorer})


def _learning_rate(train: TrainSpec) -> LearningRate:
    return LearningRate(train.lr, train.steps, train.warmup, train.schedule, from_zero=train.warmup_from == "zero")
