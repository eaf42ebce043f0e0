"""What a spec needs and this machine doesn't have: weights, data, packages, folders. Never imports torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smpo.components.locations import data_command, to_fetch
from smpo.components.rewards.learned import Learned
from smpo.experiment import ExperimentSpec
from smpo.kinds import Model, PromptSet, Reward
from smpo.registry.requirements import unmet
from smpo.registry.resolve import Resolved

__all__ = ["Obstacle", "how_to_get_prompts", "how_to_get_reward", "obstacles"]

_PLACES = ("weights", "processor", "tokenizer", "clip", "config", "vae")
"""Settings that hold a folder, a file or a hub id."""


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
    if spec.train.precision == "fp16" and not _gpu_wanted(spec.runtime.device):
        yield Obstacle(
            "train.precision", "fp16 needs a GPU: the CPU has no loss scaling", "`--set train.precision=fp32`"
        )
    if message := spec.model.check():
        yield Obstacle("model", message, _how_to_get_model(spec.model, message))
    if message := spec.data.check():
        yield Obstacle("data", message, spec.data.remedy())
    rewards = {"reward": spec.reward} if spec.reward else {}
    if spec.evaluate is not None:
        rewards |= {f"evaluate.rewards.{i}": reward for i, reward in enumerate(spec.evaluate.rewards)}
        if message := spec.evaluate.prompts.check():
            yield Obstacle("evaluate.prompts", message, how_to_get_prompts(spec.evaluate.prompts))
    for where, reward in rewards.items():
        if message := reward.check():
            yield Obstacle(where, message, how_to_get_reward(reward, where, message))
    for where, place in (("runtime.runs", spec.runtime.runs), ("runtime.cache", spec.runtime.cache)):
        if message := _unwritable(Path(place)):
            yield Obstacle(where, message, f"choose another folder: `--set {where}=FOLDER`")


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


def how_to_get_reward(reward: Reward, where: str, message: str) -> str:
    """Where the files of a reward that isn't here can be had. `message` says what is absent."""
    known = isinstance(reward, Learned) and "weights" in type(reward).model_fields
    point = f"point `{where}.weights` (and its like) at folders" if known else "choose another reward"
    return _download(reward, message, point)


def _how_to_get_model(model: Model, message: str) -> str:
    return _download(
        model, message, "point `model.weights` at a folder or a file: `--set model.weights=PATH`"
    )


def how_to_get_prompts(prompts: PromptSet) -> str:
    """Where prompts that aren't here can be had."""
    point = "point `evaluate.prompts.path` at the files"
    place, pin = getattr(prompts, "path", ""), getattr(prompts, "revision", None)
    return data_command(place, pin) + point if to_fetch(place, "datasets", revision=pin) else point


def _download(component: Model | Reward, message: str, point: str) -> str:
    """All that is to be fetched, where what the message names is; else only `point`."""
    wanted: dict[tuple[str, str | None], dict[str, None]] = {}
    for place, pin, globs in _wanted(component, message):
        wanted.setdefault((place, pin), {}).update(dict.fromkeys(globs))
    if not any(f"`{place}`" in message for place, _ in wanted):
        return point
    commands = [
        f"`hf download {place}"
        + (f" --revision {pin}" if pin else "")
        + "".join(f" --include '{glob}'" for glob in globs)
        + "`"
        for (place, pin), globs in wanted.items()
    ]
    return f"{', '.join(commands)} where there is a network (a gated one after `hf auth login`), or {point}"


def _wanted(component: Model | Reward, message: str) -> Iterator[tuple[str, str | None, Sequence[str]]]:
    """The hub ids in a component's settings of which no copy lies here, or not all of it, as `message` says; the
    revision that each is pinned to, and which of its files are read."""
    files = component.read()
    for name in type(component).model_fields:
        value = getattr(component, name)
        pin = getattr(component, "revision" if name == "weights" else f"{name}_revision", None)
        if (
            isinstance(value, str)
            and name in _PLACES
            and (to_fetch(value, revision=pin) or f"`{value}` is in" in message)
        ):
            yield value, pin, files.get(name, ())
        for member in value if isinstance(value, list) else ():
            if isinstance(inner := getattr(member, "reward", None), Reward):
                yield from _wanted(inner, message)
