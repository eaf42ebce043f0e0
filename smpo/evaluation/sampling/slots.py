"""Draw pictures from a model so that two models, or the same model twice, can be compared picture by picture.

Every picture has its own seed, a hash of (first seed, the prompt's text and group, how often that prompt came before,
image number). So it doesn't matter how many prompts are drawn, in which batches, or on how many devices: the same
prompt starts from the same noise, and a difference between two pictures is a difference between two models.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from smpo.errors import RunError
from smpo.kinds import Prompt

if TYPE_CHECKING:
    from smpo.experiment import EvaluateSpec
    from smpo.kinds import Picture

__all__ = [
    "ImageSampler",
    "SamplingSettings",
    "Slot",
    "batches",
    "draw",
    "sample_all",
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


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are drawn. All but `batch` and `keep` decide which pictures they are."""

    guidance: float = 7.5
    steps: int = 50
    images: int = 1
    """Images a prompt; their scores are averaged before prompts are compared."""
    seed: int = 1000
    limit: int | None = None
    """Use only so many prompts, evenly over the set."""
    batch: int = 32
    keep: int = 64
    """Prompts whose pictures are kept, evenly over the set; points are small and all kept."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Heights and widths; none for the model's own."""

    @classmethod
    def of(cls, spec: EvaluateSpec, *, batch: int = 32) -> SamplingSettings:
        """The settings of a spec's `evaluate` block."""
        return cls(spec.guidance, spec.steps, spec.images, spec.seed, spec.limit, batch, sizes=spec.shapes)

    def slots(self, prompts: Sequence[Prompt]) -> list[Slot]:
        """The pictures of these prompts."""
        return slots(prompts, images=self.images, seed=self.seed, sizes=self.sizes)

    def to_dict(self) -> dict[str, Any]:
        """The settings that results were obtained with, as files of results hold them; sizes as width and height."""
        sized = {"sizes": [[width, height] for height, width in self.sizes]} if self.sizes else {}
        shown = {name: getattr(self, name) for name in ("guidance", "steps", "images", "seed")}
        return shown | sized

    def drawing(self) -> dict[str, Any]:
        """Everything that shapes a picture, beside model, prompt and seed: for the keys of caches."""
        sized = {"sizes": [list(size) for size in self.sizes]} if self.sizes else {}
        return {"guidance": self.guidance, "steps": self.steps, **sized}


class ImageSampler(Protocol):
    """The part of a denoiser that an evaluation draws with."""

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        """A picture for each prompt and seed; `reference` draws from the frozen base, `size` is height and width."""
        ...


def slots(prompts: Sequence[Prompt], *, images: int, seed: int, sizes: Sequence[tuple[int, int]] = ()) -> list[Slot]:
    """The pictures of an evaluation, prompt by prompt: `[P * images]`.

    A prompt that occurs again is a new draw; its k-th occurrence has the same seeds whatever stands between. Of several
    `sizes` a prompt's first image has one by lot, a hash of the prompt, and further images have the next ones.
    """

    def size(prompt: Prompt, repeat: int, image: int) -> tuple[int, int] | None:
        lot = _hash("size", prompt.text, prompt.group, repeat) if len(sizes) > 1 else 0
        return sizes[(lot + image) % len(sizes)] if sizes else None

    return [
        Slot(number, k, prompt.text, _hash(seed, prompt.text, prompt.group, repeat, k), size(prompt, repeat, k))
        for number, (prompt, repeat) in enumerate(_repeats(prompts))
        for k in range(images)
    ]


def spread(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """At most `limit` prompts, in their order: the same share of every category, by lot within it.

    The lot is a hash of the prompt, so a larger limit only adds prompts. Every k-th prompt would be simpler, but sets
    come in patterns (eight conditions in turn, four wordings of each scene), and k may fall in step with one.
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


def batches(todo: Sequence[Slot], batch: int) -> Iterator[list[Slot]]:
    """At most `batch` slots each, of one size."""
    for size in dict.fromkeys(slot.size for slot in todo):
        alike = [slot for slot in todo if slot.size == size]
        for start in range(0, len(alike), batch):
            yield alike[start : start + batch]


def draw(
    model: ImageSampler, batch: Sequence[Slot], settings: SamplingSettings, *, reference: bool = False
) -> list[Picture]:
    """The pictures of slots of one size. `reference` draws from the frozen base. Raises `RunError` when some are
    missing."""
    sized: dict[str, Any] = {} if batch[0].size is None else {"size": batch[0].size}
    pictures = model.sample(
        [slot.text for slot in batch],
        [slot.seed for slot in batch],
        guidance=settings.guidance,
        steps=settings.steps,
        reference=reference,
        **sized,
    )
    if len(pictures) != len(batch):
        raise RunError(f"the model drew {len(pictures)} pictures for {len(batch)} prompts")
    return pictures


def sample_all(model: ImageSampler, prompts: Sequence[Prompt], settings: SamplingSettings) -> list[list[Picture]]:
    """`settings.images` pictures of every prompt, all in memory: `[P][images]`."""
    drawn: list[dict[int, Picture]] = [{} for _ in prompts]
    for part in batches(settings.slots(prompts), settings.batch):
        for slot, picture in zip(part, draw(model, part, settings), strict=True):
            drawn[slot.prompt][slot.image] = picture
    return [[images[number] for number in range(settings.images)] for images in drawn]


def _repeats(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int]]:
    """Each prompt with how often it came before. Its category is a label, not part of what is drawn."""
    seen: Counter[tuple[str, str]] = Counter()
    for prompt in prompts:
        yield prompt, seen[prompt.text, prompt.group]
        seen[prompt.text, prompt.group] += 1


def _hash(*words: str | int) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest()[:6], "big")
