"""What a spec amounts to: derived numbers, cost, what it lacks here. Never imports torch.

`smpo run` calls the very function that `smpo plan` prints, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from smpo.app.costs import GPUS, Architecture, GpuCost, Workload, estimate, known, state_bytes
from smpo.app.disk import DiskUse, disk_use
from smpo.app.forecast import Forecast, forecast
from smpo.components.locations import is_hub_id
from smpo.experiment import ExperimentSpec
from smpo.kinds import HELD_TIMESTEPS, Model, ModelFacts
from smpo.registry.resolve import Resolved

__all__ = ["Obstacle", "Plan", "judge_names", "looks_every", "make_plan"]


@dataclass(frozen=True)
class Obstacle:
    """Something the spec needs and this machine doesn't have."""

    where: str
    message: str
    help: str


@dataclass(frozen=True)
class Plan:
    """Numbers that follow from a spec. `None` where the weights or data would have to be loaded to know."""

    devices: int
    micro_batch: int
    accumulate: int
    """Micro-batches a device takes per update; the last may be smaller (`ragged`)."""
    ragged: int
    """Pairs in the last micro-batch of an update, where that is smaller than the others; else 0."""
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
    network: str | None = None
    """The architecture whose costs are known (`smpo.app.costs`), None for others."""
    gpus: list[GpuCost] = field(default_factory=list)
    """Estimates for some GPUs; empty when the architecture isn't known."""
    caches: Forecast = field(default_factory=Forecast)
    disk: DiskUse = field(default_factory=DiskUse)
    diagnosis_passes: int = 0
    """Forwards for the looks at held-out pairs, beside training."""
    obstacles: list[Obstacle] = field(default_factory=list)
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
    timesteps = facts.timesteps or 1000
    t_max = timesteps - 1 if train.t_max is None else train.t_max
    inversion = spec.inversion.expected_passes(timesteps, train.t_min, t_max)
    objective = spec.objective
    others = (1 if objective.needs_reference else 0) + (1 if objective.needs_means else 0)
    per_pair = 2 * objective.levels_per_pair() * (inversion + 3 + others)
    pairs = train.steps * train.batch
    rows = spec.data.size()
    obstacles = list(_obstacles(spec))
    prompts, sampling = None, 0
    if spec.evaluate is not None and spec.evaluate.prompts.check() is None:
        prompts = len(spec.evaluate.prompts.load())
        prompts = min(prompts, spec.evaluate.limit or prompts)
        doubled = 2 if spec.evaluate.guidance > 1 else 1
        sampling = prompts * spec.evaluate.images * spec.evaluate.steps * doubled * 2
    network = known(facts.parameters, facts.resolution)
    caches = forecast(spec, rows=rows, visits=pairs, network=network)
    disk = disk_use(resolved, facts, network, caches)
    if disk.short:
        obstacles.append(
            Obstacle("disk", disk.short, "free some space, or point `runtime.cache` at a larger disk")
        )
    costs: list[GpuCost] = []
    if network is not None:
        samples = 2 * (prompts or 0) * (spec.evaluate.images if spec.evaluate else 0)
        work = _workload(
            spec, facts, pairs, per_pair, micro, share, caches.images_to_encode, sampling, samples
        )
        costs = [estimate(network, work, gpu) for gpu in GPUS]
    return Plan(
        devices=runtime.devices,
        micro_batch=micro,
        accumulate=-(-share // micro),
        ragged=share % micro,
        steps=train.steps,
        pairs=pairs,
        rows=rows,
        inversion_passes=inversion,
        passes_per_pair=per_pair,
        total_passes=per_pair * pairs,
        training_tflop=_tflop(facts, network) * per_pair * pairs if _tflop(facts, network) else None,
        sampling_passes=sampling,
        prompts=prompts,
        network=network.name if network else None,
        gpus=costs,
        caches=caches,
        disk=disk,
        diagnosis_passes=_diagnosis_passes(spec),
        obstacles=obstacles,
        warnings=[
            *(problem.message for problem in resolved.warnings),
            *disk.warnings,
            *_unpinned(resolved),
            *_warnings(spec),
        ],
    )


def _tflop(facts: ModelFacts, network: Architecture | None) -> float:
    return facts.forward_tflop or (network.forward_tflop if network else 0.0)


def _workload(
    spec: ExperimentSpec,
    facts: ModelFacts,
    pairs: int,
    per_pair: float,
    micro: int,
    share: int,
    encoded: float,
    sampling: int,
    samples: int,
) -> Workload:
    train, runtime = spec.train, spec.runtime
    return Workload(
        pairs=pairs,
        passes_per_pair=per_pair,
        encoded=encoded,
        sampling_passes=sampling,
        samples=samples,
        micro_batch=micro,
        share_of_device=share,
        precision=train.precision,
        checkpointing=runtime.gradient_checkpointing,
        adapter=facts.trainable is None,
        average=train.ema is not None,
        state_bytes=state_bytes(train.optimiser),
        reference=spec.needs_reference,
    )


def judge_names(resolved: Resolved[ExperimentSpec]) -> list[str]:
    """What the judges are called in tables and metrics: card or component, numbered when one occurs twice."""
    names: list[str] = []
    for i, reward in enumerate(resolved.spec.evaluate.rewards if resolved.spec.evaluate else ()):
        card = resolved.card_of(f"evaluate.rewards.{i}")
        name = card.name if card else reward.use
        names.append(name if name not in names else f"{name}-{i + 1}")
    return names


def _obstacles(spec: ExperimentSpec) -> Iterator[Obstacle]:
    if message := spec.model.check():
        yield Obstacle("model", message, _how_to_get(spec.model))
    if message := spec.data.check():
        yield Obstacle("data", message, "point `data.path` at the parquet files: `--set data.path=FOLDER`")
    rewards = {"reward": spec.reward} if spec.reward else {}
    if spec.evaluate is not None:
        rewards |= {f"evaluate.rewards.{i}": reward for i, reward in enumerate(spec.evaluate.rewards)}
        if message := spec.evaluate.prompts.check():
            yield Obstacle("evaluate.prompts", message, "point `evaluate.prompts.path` at the file")
    for where, reward in rewards.items():
        if message := reward.check():
            yield Obstacle(where, message, "fetch the weights first, or choose another reward")


def _how_to_get(model: Model) -> str:
    """Where a model that isn't here can be had."""
    point = "point `model.weights` at a folder or a file: `--set model.weights=PATH`"
    place, pin = getattr(model, "weights", ""), getattr(model, "revision", None)
    if not is_hub_id(place):
        return point
    command = f"hf download {place}" + (f" --revision {pin}" if pin else "")
    return f"`{command}` where there is a network (a gated one after `hf auth login`), or {point}"


def looks_every(spec: ExperimentSpec) -> int:
    """Updates between looks at the held-out pairs."""
    return spec.runtime.diagnose_every or max(1, spec.train.steps // 10)


def _diagnosis_passes(spec: ExperimentSpec) -> int:
    if not spec.train.holdout:
        return 0
    steps, every = spec.train.steps, looks_every(spec)
    looks = steps // every + (steps % every > 0) + 1  # the first is the base's
    return looks * 2 * spec.train.holdout * HELD_TIMESTEPS


def _company(spec: ExperimentSpec) -> Iterator[str]:
    """Components that are sound alone and make little sense together."""
    objective, smoothing = spec.objective, spec.smoothing
    yield from objective.doubts(smoothing, spec.inversion)
    if objective.uses == "side" and not smoothing.certain:
        instead = "pseudo-labels" if smoothing.needs_reward else "hard"
        yield (
            f"`{objective.use}` looks only at which side p prefers, not how surely: smoothing `{smoothing.use}` acts "
            f"like `{instead}` here"
        )
    if spec.train.holdout and spec.runtime.diagnose_every and spec.runtime.diagnose_every > spec.train.steps:
        yield "`runtime.diagnose_every` is longer than the run: the held-out pairs are looked at only at its end"
    if not spec.train.holdout and spec.runtime.diagnose_every:
        yield "`runtime.diagnose_every` has nothing to look at: set `train.holdout` to a number of pairs"


def _unpinned(resolved: Resolved[ExperimentSpec]) -> Iterator[str]:
    """Weights on the hub that may be others tomorrow."""
    for slot in ("model", "reward"):
        component = resolved.components().get(slot)
        for place, pin in (("weights", "revision"), ("vae", "vae_revision")):
            name = getattr(component, place, None)
            if isinstance(name, str) and is_hub_id(name) and getattr(component, pin, None) is None:
                yield (
                    f"`{slot}.{place}` takes whatever `{name}` holds on the hub that day: pin a commit with "
                    f"`{slot}.{pin}` (lock.json will say what it was)"
                )


def _dealing(spec: ExperimentSpec) -> Iterator[str]:
    """Micro-batches that come out uneven. The update is the same; memory or time may be wasted."""
    share, micro = spec.train.batch // spec.runtime.devices, spec.runtime.micro_batch
    if micro is None or share % micro == 0:
        return
    if micro > share:
        yield (
            f"`runtime.micro_batch` {micro} is more than the {share} pair{'s' * (share > 1)} that a device takes per "
            "update: it holds them all at once"
        )
        return
    count = -(-share // micro)
    even = -(-share // count)
    better = f"; {even} makes as many, of equal size" if share % even == 0 else ""
    yield (
        f"`runtime.micro_batch` {micro} does not divide the {share} pairs that a device takes per update: the last of "
        f"{count} micro-batches holds {share % micro}. The result is the same{better}"
    )


def _warnings(spec: ExperimentSpec) -> Iterator[str]:
    yield from _company(spec)
    yield from _dealing(spec)
    if spec.evaluate is None:
        yield "nothing is evaluated: add an `evaluate:` block to learn whether the policy got better"
        return
    judges = spec.evaluate.rewards
    if spec.reward is not None and all(judge == spec.reward for judge in judges):
        yield (
            "the only judge is the reward that smooths the labels: a policy can please it without getting better; "
            "add a second one to `evaluate.rewards`"
        )
    if spec.evaluate.prompts.role != "untouched":
        yield (
            f"the evaluation prompts are a {spec.evaluate.prompts.role} set: fine for choosing settings, not for "
            "numbers that are reported"
        )
    if spec.train.schedule == "constant" and spec.train.warmup == spec.train.steps:
        yield "the warm-up is as long as the run: the peak learning rate is reached only at its end"
