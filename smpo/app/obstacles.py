"""What a spec needs and this machine doesn't have: weights, data, packages, folders. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smpo.components.locations import is_hub_id
from smpo.experiment import ExperimentSpec
from smpo.kinds import Model
from smpo.registry.requirements import unmet
from smpo.registry.resolve import Resolved

__all__ = ["Obstacle", "obstacles"]


@dataclass(frozen=True)
class Obstacle:
    """Something the spec needs and this machine doesn't have."""

    where: str
    message: str
    help: str


def obstacles(resolved: Resolved[ExperimentSpec]) -> Iterator[Obstacle]:
    """Why a run would fail here, found without loading anything. Disk is `smpo.app.disk`'s business."""
    spec = resolved.spec
    for lack in unmet(resolved.components()):
        kind = resolved.components()[lack.path].kind
        yield Obstacle(lack.path, lack.message.removeprefix(f"{kind} "), lack.help or "")
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
    for where, place in (("runtime.runs", spec.runtime.runs), ("runtime.cache", spec.runtime.cache)):
        if message := _unwritable(Path(place)):
            yield Obstacle(where, message, f"choose another folder: `--set {where}=FOLDER`")


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


def _how_to_get(model: Model) -> str:
    """Where a model that isn't here can be had."""
    point = "point `model.weights` at a folder or a file: `--set model.weights=PATH`"
    place, pin = getattr(model, "weights", ""), getattr(model, "revision", None)
    if not is_hub_id(place):
        return point
    command = f"hf download {place}" + (f" --revision {pin}" if pin else "")
    return f"`{command}` where there is a network (a gated one after `hf auth login`), or {point}"
