"""How missing weights, data and prompts can be downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smpo.components.locations import data_command, to_fetch
from smpo.components.rewards.learned import Learned
from smpo.kinds import Model, PromptSet, Reward

__all__ = ["how_to_get_prompts", "how_to_get_reward"]


_PLACES = ("weights", "processor", "tokenizer", "clip", "config", "vae")
"""Settings that hold a folder, a file or a hub id."""


def how_to_get_reward(reward: Reward, where: str, message: str) -> str:
    """How to download the files of a reward that isn't here. `message` names the missing ones."""
    known = isinstance(reward, Learned) and "weights" in type(reward).model_fields
    point = f"point `{where}.weights` (and its like) at folders" if known else "choose another reward"
    return _download(reward, message, point)


def _how_to_get_model(model: Model, message: str) -> str:
    return _download(model, message, "point `model.weights` at a folder or a file: `--set model.weights=PATH`")


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
    """The hub ids in a component's settings of which `message` reports no copy, or an incomplete one; the
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
