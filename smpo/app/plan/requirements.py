"""Requirements of a spec that this machine lacks: weights, data, packages, folders. Never imports torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smpo.components.fetch import _how_to_get_model, how_to_get_prompts, how_to_get_reward
from smpo.experiment import ExperimentSpec
from smpo.registry.requirements import is_installed, unmet
from smpo.registry.resolve import Resolved
from smpo.tracking.store import find_store

__all__ = ["MissingRequirement", "missing_requirements"]


@dataclass(frozen=True)
class MissingRequirement:
    """Something the spec needs and this machine doesn't have."""

    where: str
    message: str
    help: str


def missing_requirements(resolved: Resolved[ExperimentSpec]) -> Iterator[MissingRequirement]:
    """Why a run would fail here, found without loading anything. Disk is `smpo.app.plan.disk`'s business."""
    spec = resolved.spec
    for lack in unmet(resolved.components()):
        kind = resolved.components()[lack.path].kind
        yield MissingRequirement(lack.path, lack.message.removeprefix(f"{kind} "), lack.help or "")
    if spec.train.precision == "fp16" and not _gpu_wanted(spec.runtime.device):
        yield MissingRequirement(
            "train.precision", "fp16 needs a GPU: the CPU has no loss scaling", "`--set train.precision=fp32`"
        )
    if find_store(Path(spec.runtime.runs), spec.runtime.tracking) is not None and not is_installed("mlflow"):
        remedy = "`pip install mlflow`, or `--set runtime.tracking=none`"
        yield MissingRequirement("runtime.tracking", "needs `mlflow`, which is not installed", remedy)
    if message := spec.model.check():
        yield MissingRequirement("model", message, _how_to_get_model(spec.model, message))
    if message := spec.data.check():
        yield MissingRequirement("data", message, spec.data.remedy())
    rewards = {"reward": spec.reward} if spec.reward else {}
    if spec.evaluate is not None:
        rewards |= {f"evaluate.rewards.{i}": reward for i, reward in enumerate(spec.evaluate.rewards)}
        if message := spec.evaluate.prompts.check():
            yield MissingRequirement("evaluate.prompts", message, how_to_get_prompts(spec.evaluate.prompts))
    for where, reward in rewards.items():
        if message := reward.check():
            yield MissingRequirement(where, message, how_to_get_reward(reward, where, message))
    for where, place in (("runtime.runs", spec.runtime.runs), ("runtime.cache", spec.runtime.cache)):
        if message := _unwritable(Path(place)):
            yield MissingRequirement(where, message, f"choose another folder: `--set {where}=FOLDER`")


def _gpu_wanted(device: str) -> bool:
    """Whether a GPU would be used, as far as can be seen without torch."""
    return device != "cpu" and not (device == "auto" and sys.platform == "linux" and not _gpu_here())


def _gpu_here() -> bool:
    """A driver of NVIDIA's, of AMD's, or that of Windows' Linux."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "nvidia0", "kfd", "dxg"))


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written there; the nearest folder above that exists answers for one that doesn't."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"`{place}` is not a folder"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"nothing can be written in `{place}`: it is read-only here"
    return None
