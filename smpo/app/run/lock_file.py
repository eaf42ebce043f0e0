"""The lock of a run that is about to train: what it was made from, and how this machine computes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from smpo.app.build.live import LiveRun
from smpo.errors import RunError
from smpo.evaluation.sampling.slots import spread
from smpo.experiment import ExperimentSpec
from smpo.kinds import Prompt
from smpo.registry.resolve import Resolved
from smpo.runs.lock import DECISIVE, INFLUENCES, RunFacts, changes, lock_facts

__all__ = ["arithmetic", "compare_locks", "device_name", "lock_of", "prompts_digest"]


def lock_of(resolved: Resolved[ExperimentSpec], live: LiveRun) -> dict[str, Any]:
    """Everything that a repetition needs to find unchanged (`smpo.runs.lock`)."""
    spec = resolved.spec
    wanted = spec.evaluate
    data: dict[str, Any] = {"digest": live.table.digest, "pairs": len(live.table)}
    if wanted is not None:
        data["prompts"] = prompts_digest(spread(wanted.prompts.load(), wanted.limit))
    facts = RunFacts(
        spec=resolved.identity.spec_hash,
        group=resolved.identity.group_hash,
        seeds={"train": spec.train.seed, **({"evaluate": wanted.seed} if wanted else {})},
        data=data,
        weights={
            "model": live.session.denoiser.weights_key,
            **{f"{part}@hub": commit for part, commit in live.session.denoiser.origin.items()},
            **({"reward": live.reward_key} if live.reward_key else {}),
        },
        uses={one.path.name: one.digest for one in resolved.local_files},
        runtime=spec.runtime.model_dump(mode="json"),
        labels=_labels(live),
        arithmetic=arithmetic(),
    )
    return lock_facts(facts, devices=[device_name(live.session.denoiser.device)])


def arithmetic() -> dict[str, Any]:
    """How torch computes here: whatever makes two machines, or two settings of one, differ in the last digits."""
    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32 if cuda else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def prompts_digest(prompts: list[Prompt]) -> str:
    """The digest of the prompts in order, whatever file they came from."""
    texts = [[prompt.text, prompt.group] for prompt in prompts]
    return hashlib.sha256(json.dumps(texts, ensure_ascii=True).encode()).hexdigest()[:32]


def compare_locks(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    anyway: bool = False,
    help: str = "bring the data, weights or code back, or go on in spite of it with `--anyway`",
) -> None:
    """Refuse what would be another experiment, and say what else is different.

    Raises `RunError` when pairs, weights, prompts or local code aren't those of `before`, unless `anyway`.
    """
    other = changes(before, now, DECISIVE)
    if other and not anyway:
        raise RunError(
            f"this would not be the same run: {'; '.join(other)}",
            help=help,
        )
    for line in (*other, *changes(before, now, INFLUENCES)):
        say(f"different here: {line}")


def _labels(live: LiveRun) -> dict[str, Any]:
    """What the pairs were labelled with. Scores are floats of a network: another machine may round them otherwise."""
    p = live.p.detach().cpu().contiguous()
    told: dict[str, Any] = {"p": hashlib.sha256(p.double().numpy().tobytes()).hexdigest()[:32]}
    if live.stats is not None and math.isfinite(live.stats.low):
        told |= {"low": live.stats.low, "high": live.stats.high, "scores": live.stats.count}
    return told


def device_name(device: torch.device | str) -> str:
    """`cpu`, or `cuda` with what the card is called."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return str(device.type)
