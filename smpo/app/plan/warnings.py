"""Warnings about a sound spec. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from smpo.components.locations import is_hub_id
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved

__all__ = ["spec_warnings"]


def spec_warnings(resolved: Resolved[ExperimentSpec]) -> Iterator[str]:
    """Warnings of `smpo plan`, a sentence or two each."""
    for problem in resolved.warnings:
        where = f" ({problem.span.origin})" if problem.span is not None else ""
        yield f"{problem.message}{where}"
    spec = resolved.spec
    yield from _unpinned(resolved)
    yield from _company(spec)
    yield from _dealing(spec)
    yield from _judged(spec)
    if spec.data.bucketed and spec.runtime.compile:
        yield (
            "`runtime.compile` compiles the blocks again where `data.buckets` brings another size: expect minutes more "
            "at the beginning"
        )
    if spec.data.bucketed and spec.model.sized and spec.evaluate is not None and not spec.evaluate.sizes:
        yield "pairs are cut to buckets, and the evaluation draws squares: `evaluate.sizes` names other sizes"
    if getattr(spec.model, "lora", None) is not None:
        for setting, why in _FOR_WHOLE_NETWORKS.items():
            if getattr(spec.runtime, setting):
                yield f"`runtime.{setting}` does nothing for a LoRA: {why}"
    if spec.train.schedule == "constant" and spec.train.warmup == spec.train.steps:
        yield "the warm-up is as long as the run: the peak learning rate is reached only at its end"


_FOR_WHOLE_NETWORKS = {
    "offload_reference": "its reference is the policy without the adapter, and no second network",
    "shadow_weights": "only of a policy that is trained whole is there a copy in 16 bits",
}


def _company(spec: ExperimentSpec) -> Iterator[str]:
    """Components that are sound alone and make little sense together."""
    objective, smoothing = spec.objective, spec.smoothing
    yield from objective.warnings(smoothing, spec.inversion)
    if objective.label_use == "side" and not smoothing.is_hard:
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


def _judged(spec: ExperimentSpec) -> Iterator[str]:
    """Evaluations that wouldn't convince."""
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
