"""`smpo score`: what a reward thinks of every image of a spec's pairs, computed once and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.console import Console
from smpo.components.fetch import how_to_get_reward
from smpo.data.progress import Progress
from smpo.errors import MachineError, RunError
from smpo.experiment import ExperimentSpec
from smpo.kinds import PairTable, Reward, Runtime, Scorer, ScoreStats

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.data.cache.work_split import WorkSplit

__all__ = ["Scored", "ensure_scores", "provenance_of", "score_data"]


@dataclass(frozen=True)
class Scored:
    """`computed` of `wanted` scores were missing before."""

    reward: str
    key: str
    pairs: int
    wanted: int
    computed: int
    seconds: float
    stats: ScoreStats
    provenance: list[dict[str, Any]]
    file: Path


def score_data(spec: ExperimentSpec, console: Console) -> Scored:
    """Score both images of every pair with the spec's reward. A kill loses at most one batch; what is known isn't
    computed again, in this run or any other."""
    from smpo.app.build.device import live_runtime

    if spec.reward is None:
        raise RunError("the spec names no reward", help="choose one: `--reward NAME`")
    if message := spec.data.check():
        raise MachineError(f"data: {message}", help=spec.data.remedy())
    if message := spec.reward.check():
        raise MachineError(f"reward: {message}", help=how_to_get_reward(spec.reward, "reward", message))
    runtime = live_runtime(spec)
    console.phase("reading")
    table = spec.data.load(runtime)
    console.phase("scoring")
    began = time.monotonic()
    counted: dict[str, Any] = {}
    key, _, _, stats = ensure_scores(spec.reward, table, runtime, console.progress, counted)
    from smpo.data.cache.cache_facts import save_facts

    prompts = len({table[row].prompt for row in range(len(table))})
    save_facts(runtime.cache, spec.data, {"digest": table.digest, "pairs": len(table), "prompts": prompts})
    save_facts(runtime.cache, spec.reward, {"key": key})
    return Scored(
        reward=spec.reward.use,
        key=key,
        pairs=len(table),
        wanted=counted["wanted"],
        computed=counted["computed"],
        seconds=time.monotonic() - began,
        stats=stats,
        provenance=counted["provenance"],
        file=runtime.cache / "scores.db",
    )


def ensure_scores(
    reward: Reward,
    table: PairTable,
    runtime: Runtime,
    progress: Progress | None,
    counted: dict[str, Any] | None = None,
    team: WorkSplit | None = None,
) -> tuple[str, Tensor, Tensor, ScoreStats]:
    """`(key, winner [M], loser [M], stats)`; the reward is loaded, used if scores are missing, and let go of.
    `counted` receives how many were wanted and computed, and the scorer's provenance. A `team` shares the work."""
    import gc

    import torch

    from smpo.data.cache.scores import ScoreTable
    from smpo.data.cache.work_split import SINGLE_PROCESS

    scorer = reward.load(runtime)
    store = ScoreTable(runtime.cache / "scores.db")
    if counted is not None:
        counted.update(wanted=store.wanted(table), computed=store.missing(table, scorer.key))
    provenance = provenance_of(reward, scorer, runtime)
    winner, loser, stats = store.ensure(
        table,
        scorer,
        batch=runtime.batch,
        progress=progress,
        provenance=provenance,
        team=team or SINGLE_PROCESS,
        workers=runtime.workers,
    )
    if counted is not None:
        counted.update(provenance=store.provenance(scorer.key))
    key = scorer.key
    del scorer
    gc.collect()
    if runtime.device == "cuda":
        torch.cuda.empty_cache()
    return key, winner, loser, stats


def provenance_of(reward: Reward, scorer: Scorer, runtime: Runtime) -> dict[str, Any]:
    """What is stored beside scores: how they were computed."""
    import torch

    return {
        "reward": reward.model_dump(mode="json"),
        "revision": getattr(reward, "revision", None),
        "dtype": str(getattr(scorer, "dtype", "float32")).removeprefix("torch."),
        "device": runtime.device,
        "torch": str(torch.__version__),
    }
