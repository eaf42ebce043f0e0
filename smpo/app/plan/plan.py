"""The plan of a spec: derived numbers, cost, requirements that this machine lacks. Never imports torch.

`smpo run` calls the very function that `smpo plan` prints, so the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from smpo.app.plan.cache_use import CacheUse, cache_use
from smpo.app.plan.disk import DiskUse, disk_use
from smpo.app.plan.forward_passes import (
    Prepared,
    Sampled,
    Scored,
    diagnosis_passes,
    prepared,
    sampled,
    scored,
)  # fmt: skip
from smpo.app.plan.gpu_memory import Memory, memory_of
from smpo.app.plan.gpu_time import GpuCost, estimate, state_bytes
from smpo.app.plan.requirements import MissingRequirement, missing_requirements
from smpo.app.plan.warnings import spec_warnings
from smpo.app.plan.workload import GPUS, Architecture, Workload, known
from smpo.data.stream.buckets import portions
from smpo.experiment import ExperimentSpec
from smpo.kinds import ModelFacts
from smpo.registry.resolve import Resolved

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """Numbers that follow from a spec. `None` where the weights or data would have to be loaded to know."""

    devices: int
    micro_batch: int
    accumulate: int
    """Micro-batches a device takes per update; the last may be smaller (`ragged`)."""
    ragged: int
    """Pairs in the last micro-batch of an update, where that is smaller than the others; else 0."""
    portions: float | None
    """Micro-batches a device takes per update on average where each holds pairs of one size only (`data.buckets`), by
    the sizes of the last run's pairs; None without buckets, and where no run has counted."""
    steps: int
    pairs: int
    """Pairs seen in training."""
    rows: int | None
    """Rows of the data set, before ties and broken ones are dropped."""
    inversion_passes: float
    """Mean network passes an image that the inversion takes."""
    passes_per_pair: float
    """Forwards of one image through the network: inversion and reference as one each, policy with backward as three."""
    total_passes: float
    training_tflop: float | None
    sampling_passes: int
    """Forwards for the evaluation's samples, both models, guidance counted double."""
    prompts: int | None
    preview_passes: int = 0
    """Forwards for the grids of previews."""
    trainable: int | None = None
    """Numbers that are trained: the network's, or the adapter's."""
    network: str | None = None
    """The architecture whose costs are known (`smpo.app.plan.gpu_time`), None for others."""
    gpus: list[GpuCost] = field(default_factory=list)
    """Estimates for some GPUs; empty when the architecture isn't known."""
    memory: Memory | None = None
    """Of one device; None when the architecture isn't known."""
    uncounted: list[str] = field(default_factory=list)
    """What the estimates leave out because it can't be known here, in words."""
    caches: CacheUse = field(default_factory=CacheUse)
    preparation: Prepared = field(default_factory=Prepared)
    disk: DiskUse = field(default_factory=DiskUse)
    diagnosis_passes: int = 0
    """Forwards for the looks at held-out pairs, beside training."""
    missing: list[MissingRequirement] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(resolved: Resolved[ExperimentSpec]) -> Plan:
    """Derive everything that can be known without loading anything heavy."""
    spec = resolved.spec
    train, runtime = spec.train, spec.runtime
    share = train.batch // runtime.devices
    micro = min(runtime.micro_batch or share, share)
    facts = spec.model.facts()
    pairs = train.steps * train.batch
    rows = spec.data.size()
    network = known(facts.parameters, facts.resolution)
    pictures = sampled(spec)
    caches = cache_use(spec, rows=rows, visits=pairs, network=network, side=facts.resolution)
    inversion, per_pair = _passes(spec, facts)
    scores = scored(resolved, caches, pictures.samples)
    preparation = prepared(spec, caches, scores.reward, network.encode_tflop if network else None)
    disk = disk_use(resolved, facts, network, caches, pictures)
    lacking = list(missing_requirements(resolved))
    if disk.short:
        remedy = "free some space, or point `runtime.cache` at a larger disk"
        lacking.append(MissingRequirement("disk", disk.short, remedy))
    costs: list[GpuCost] = []
    memory: Memory | None = None
    if network is not None:
        work = _workload(spec, facts, network, per_pair, inversion > 0, pictures, preparation, scores)
        costs = [estimate(network, work, gpu) for gpu in GPUS]
        memory = memory_of(network, work)
    tflop = facts.forward_tflop or (network.forward_tflop if network else None)
    return Plan(
        devices=runtime.devices,
        micro_batch=micro,
        accumulate=-(-share // micro),
        ragged=share % micro,
        portions=portions(caches.filled.values(), share, micro) if caches.filled else None,
        steps=train.steps,
        pairs=pairs,
        rows=rows,
        inversion_passes=inversion,
        passes_per_pair=per_pair,
        total_passes=per_pair * pairs,
        training_tflop=tflop * per_pair * pairs if tflop else None,
        sampling_passes=pictures.passes,
        preview_passes=pictures.preview_passes,
        diagnosis_passes=diagnosis_passes(spec),
        prompts=pictures.prompts,
        trainable=facts.trainable,
        memory=memory,
        network=network.name if network else None,
        gpus=costs,
        uncounted=scores.unknown if costs else [],
        caches=caches,
        preparation=preparation,
        disk=disk,
        missing=lacking,
        warnings=[
            *spec_warnings(resolved),
            *_needless(spec, caches, pairs),
            *disk.warnings,
        ],
    )


def _workload(
    spec: ExperimentSpec,
    facts: ModelFacts,
    network: Architecture,
    passes_per_pair: float,
    inverts: bool,
    pictures: Sampled,
    preparation: Prepared,
    scores: Scored,
) -> Workload:
    train, runtime, objective = spec.train, spec.runtime, spec.objective
    whole, share = not facts.adapter, train.batch // runtime.devices
    followed: Literal["policy", "reference"] = (
        "reference" if getattr(spec.inversion, "by", "policy") == "reference" else "policy"
    )
    return Workload(
        pairs=train.steps * train.batch,
        passes_per_pair=passes_per_pair,
        encoded=preparation.encoded,
        sampling_passes=(pictures.passes + pictures.preview_passes) * pictures.area,
        samples=(pictures.samples + pictures.previews) * pictures.area,
        diagnosis_passes=diagnosis_passes(spec),
        scoring_tflop=scores.reward,
        judging_tflop=scores.judges,
        micro_batch=min(runtime.micro_batch or share, share),
        levels=objective.levels_per_pair(),
        share_of_device=share,
        precision=train.precision,
        checkpointing=runtime.gradient_checkpointing,
        trainable=None if whole else facts.trainable or 0,
        average=train.ema is not None,
        state_bytes=state_bytes(train.optimiser, network if whole else None),
        reference=spec.needs_reference,
        offloaded=runtime.offload_reference and spec.needs_reference and whole,
        dora=facts.adapter and facts.wide,
        shadow=runtime.shadow_weights and whole,
        window=runtime.window,
        inverts=followed if inverts else None,
        inversion_rows=runtime.inversion_batch,
        means=objective.needs_means,
        attention_alone=facts.attention_alone,
        visits=objective.levels_per_pair() * train.timesteps_per_pair,
        processes=runtime.devices,
        sharded=runtime.sharding == "fsdp",
        scoring_16=getattr(spec.reward, "precision", "fp32") != "fp32",
    )


def _needless(spec: ExperimentSpec, caches: CacheUse, visits: int) -> list[str]:
    """Scores of pairs that are never visited."""
    if spec.scores != "all" or caches.scores_complete or caches.pairs is None or 2 * visits > caches.pairs:
        return []
    way = ""
    if not spec.objective.sampling().paired:
        why = f"`objective: {spec.objective.use}` draws single images by the labels of all pairs"
    else:
        why = f"smoothing `{spec.smoothing.use}` measures scores by their range over all pairs"
        if {"low", "high"} <= type(spec.smoothing).model_fields.keys():
            way = "; set `smoothing.low` and `smoothing.high` to score only what is visited"
            if "pickscore" in str(getattr(spec.reward, "weights", "")).lower():
                way += " (the card `pickscore-likelihood` has those of the official code)"
    return [f"all {caches.pairs:,} pairs are scored though training makes {visits:,} visits: {why}{way}"]


def _passes(spec: ExperimentSpec, facts: ModelFacts) -> tuple[float, float]:
    """Network passes an image that the inversion takes, and forwards a pair in all: for each of its images and levels
    the inversion's, three of the policy (a backward counts as two), the reference's, and the extra one for means."""
    train, objective = spec.train, spec.objective
    timesteps = facts.timesteps or 1000
    t_max = timesteps - 1 if train.t_max is None else train.t_max
    levels = objective.levels_per_pair() * train.timesteps_per_pair
    inversion = spec.inversion.expected_passes(timesteps, train.t_min, t_max, levels)
    others = objective.needs_reference + objective.needs_means
    return inversion, 2 * levels * (inversion + 3 + others)
