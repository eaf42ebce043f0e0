"""Draw pictures from a model so that two models, or the same model twice, can be compared picture by picture.

Every picture has its own seed, a hash of (first seed, prompt text, how often that text came before, image
number). So it doesn't matter how many prompts are drawn, in which batches, or on how many devices: the same
prompt starts from the same noise, and a difference between two pictures is a difference between two models.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from smpo.errors import RunError
from smpo.kinds import Denoiser, Prompt

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["Slot", "picture_seed", "sample_all", "sample_slots", "slots", "spread"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Slot:
    """One picture that is to be drawn: image `image` of prompt number `prompt`, which reads `text`."""

    prompt: int
    image: int
    text: str
    seed: int


def picture_seed(seed: int, text: str, repeat: int, image: int) -> int:
    """48 bits: what every generator takes, and what JSON readers with floating-point numbers can't garble."""
    words = json.dumps([seed, text, repeat, image], ensure_ascii=True).encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:6], "big")


def slots(prompts: Sequence[Prompt], *, images: int, seed: int) -> list[Slot]:
    """The pictures of an evaluation, prompt by prompt: `[P * images]`.

    A text that occurs again is a new draw. Its k-th occurrence has the same seeds whichever prompts stand
    between.
    """
    seen: Counter[str] = Counter()
    found = []
    for number, prompt in enumerate(prompts):
        repeat = seen[prompt.text]
        seen[prompt.text] += 1
        found += [
            Slot(number, image, prompt.text, picture_seed(seed, prompt.text, repeat, image))
            for image in range(images)
        ]
    return found


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items, evenly over the sequence and in its order: sets are often sorted by category."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * limit)] for k in range(limit)]


def sample_slots(
    denoiser: Denoiser,
    todo: Sequence[Slot],
    *,
    guidance: float,
    steps: int,
    batch: int,
    reference: bool = False,
) -> Iterator[tuple[list[Slot], list[Picture]]]:
    """Draw the slots in batches, yielding each batch as it is done, so that nobody must hold them all."""
    for start in range(0, len(todo), batch):
        part = list(todo[start : start + batch])
        pictures = denoiser.sample(
            [slot.text for slot in part],
            [slot.seed for slot in part],
            guidance=guidance,
            steps=steps,
            reference=reference,
        )
        if len(pictures) != len(part):
            raise RunError(f"the model drew {len(pictures)} pictures for {len(part)} prompts")
        yield part, pictures


def sample_all(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    *,
    images: int = 1,
    seed: int = 1000,
    guidance: float,
    steps: int,
    batch: int = 32,
    reference: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Picture]]:
    """`images` pictures of every prompt, all in memory: `[P][images]`. `progress(done, total)` counts
    pictures.

    `reference=True` draws from the frozen base. For many large pictures use `sample_slots` and let go of
    them.
    """
    todo = slots(prompts, images=images, seed=seed)
    drawn: list[list[Picture]] = [[] for _ in prompts]
    done = 0
    for part, pictures in sample_slots(
        denoiser, todo, guidance=guidance, steps=steps, batch=batch, reference=reference
    ):
        for slot, picture in zip(part, pictures, strict=True):
            drawn[slot.prompt].append(picture)
        done += len(part)
        if progress is not None:
            progress(done, len(todo))
    return drawn
