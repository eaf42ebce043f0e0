"""Draw pictures from a model so that two models, or the same model twice, can be compared picture by picture.

Every picture has its own seed, a hash of (first seed, the prompt's text and group, how often that prompt came
before, image number). So it doesn't matter how many prompts are drawn, in which batches, or on how many
devices: the same prompt starts from the same noise, and a difference between two pictures is a difference
between two models.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smpo.errors import RunError
from smpo.kinds import Denoiser, Prompt

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = [
    "Slot",
    "batches",
    "picture_seed",
    "sample_all",
    "sample_slots",
    "slots",
    "spread",
    "spread_numbers",
]


@dataclass(frozen=True)
class Slot:
    """One picture that is to be drawn: image `image` of prompt number `prompt`, which reads `text`."""

    prompt: int
    image: int
    text: str
    seed: int
    size: tuple[int, int] | None = None
    """Height and width; None for the model's own."""


def picture_seed(seed: int, prompt: Prompt, repeat: int, image: int) -> int:
    """48 bits: what every generator takes, and what JSON readers with floating-point numbers can't garble."""
    return _hash(seed, prompt.text, prompt.group, repeat, image)


def slots(
    prompts: Sequence[Prompt], *, images: int, seed: int, sizes: Sequence[tuple[int, int]] = ()
) -> list[Slot]:
    """The pictures of an evaluation, prompt by prompt: `[P * images]`.

    A prompt that occurs again is a new draw; its k-th occurrence has the same seeds whatever stands between. Of several
    `sizes` a prompt's first image has one by lot, a hash of the prompt, and further images have the next ones.
    """

    def size(prompt: Prompt, repeat: int, image: int) -> tuple[int, int] | None:
        lot = _hash("size", prompt.text, prompt.group, repeat) if len(sizes) > 1 else 0
        return sizes[(lot + image) % len(sizes)] if sizes else None

    return [
        Slot(
            number, image, prompt.text, picture_seed(seed, prompt, repeat, image), size(prompt, repeat, image)
        )
        for number, (prompt, repeat) in enumerate(_repeats(prompts))
        for image in range(images)
    ]


def spread(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """At most `limit` prompts, in their order: the same share of every category, by lot within it.

    The lot is a hash of the prompt, so a larger limit only adds prompts. Every k-th prompt would be simpler,
    but sets come in patterns (eight conditions in turn, four wordings of each scene), and k may fall in step
    with one.
    """
    return [prompts[number] for number in spread_numbers(prompts, limit)]


def spread_numbers(prompts: Sequence[Prompt], limit: int | None) -> list[int]:
    """Which prompts `spread` takes, in rising order."""
    if limit is None or limit >= len(prompts):
        return list(range(len(prompts)))
    lots: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (prompt, repeat) in enumerate(_repeats(prompts)):
        lots[prompt.category].append((_hash("spread", prompt.text, prompt.group, repeat), number))
    # The r-th of m in a category stands at (r + 1/2) / m: taken in this order, categories keep their shares.
    order = [
        ((rank + 0.5) / len(drawn), lot, number)
        for drawn in lots.values()
        for rank, (lot, number) in enumerate(sorted(drawn))
    ]
    return sorted(number for _, _, number in sorted(order)[:limit])


def sample_slots(
    denoiser: Denoiser,
    todo: Sequence[Slot],
    *,
    guidance: float,
    steps: int,
    batch: int,
    reference: bool = False,
) -> Iterator[tuple[list[Slot], list[Picture]]]:
    """Draw the slots in batches, yielding each batch as it is done, so that nobody must hold them all.

    A batch is of one size, so slots of several sizes come out of order."""
    for part in batches(todo, batch):
        sized: dict[str, Any] = {} if part[0].size is None else {"size": part[0].size}
        pictures = denoiser.sample(
            [slot.text for slot in part],
            [slot.seed for slot in part],
            guidance=guidance,
            steps=steps,
            reference=reference,
            **sized,
        )
        if len(pictures) != len(part):
            raise RunError(f"the model drew {len(pictures)} pictures for {len(part)} prompts")
        yield part, pictures


def batches(todo: Sequence[Slot], batch: int) -> Iterator[list[Slot]]:
    """At most `batch` slots each, of one size."""
    for size in dict.fromkeys(slot.size for slot in todo):
        alike = [slot for slot in todo if slot.size == size]
        for start in range(0, len(alike), batch):
            yield alike[start : start + batch]


def sample_all(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    *,
    images: int = 1,
    seed: int = 1000,
    guidance: float,
    steps: int,
    batch: int = 32,
    sizes: Sequence[tuple[int, int]] = (),
    reference: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Picture]]:
    """`images` pictures of every prompt, all in memory: `[P][images]`. `progress(done, total)` counts
    pictures.

    `reference=True` draws from the frozen base. For many large pictures use `sample_slots` and let go of
    them.
    """
    todo = slots(prompts, images=images, seed=seed, sizes=sizes)
    drawn: list[dict[int, Picture]] = [{} for _ in prompts]
    done = 0
    for part, pictures in sample_slots(
        denoiser, todo, guidance=guidance, steps=steps, batch=batch, reference=reference
    ):
        for slot, picture in zip(part, pictures, strict=True):
            drawn[slot.prompt][slot.image] = picture
        done += len(part)
        if progress is not None:
            progress(done, len(todo))
    return [[found[image] for image in range(images)] for found in drawn]


def _repeats(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int]]:
    """Each prompt with how often it came before. Its category is a label, not part of what is drawn."""
    seen: Counter[tuple[str, str]] = Counter()
    for prompt in prompts:
        yield prompt, seen[prompt.text, prompt.group]
        seen[prompt.text, prompt.group] += 1


def _hash(*words: str | int) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest()[:6], "big")
