"""Images and prompts that a run has to score and encode, and those in the caches already. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from smpo.app.plan.workload import Architecture
from smpo.data.cache.cache_facts import Stored, encoded, load_facts, scored
from smpo.data.stream.buckets import latents_key
from smpo.experiment import ExperimentSpec

__all__ = ["CacheUse", "cache_use"]


@dataclass(frozen=True)
class CacheUse:
    """Rows of each cache: wanted by this spec, at most, and stored. None where they can't be known."""

    scores: int | None = None
    scores_stored: int = 0
    scores_complete: bool = False
    scores_of: Literal["none", "visited", "all"] = "none"
    """Which pairs are scored: `ExperimentSpec.scores`."""
    images: int | None = None
    images_stored: int = 0
    prompts: int | None = None
    prompts_stored: int = 0
    latent_bytes: int | None = None
    """Of one image's row."""
    text_bytes: int | None = None
    pairs: int | None = None
    """Of the data, held-out ones included."""
    buckets: Sequence[tuple[int, int]] = ()
    """Sizes (height, width) that pairs are cut to; empty where all are squares."""
    filled: Mapping[int, int] = field(default_factory=dict)
    """Pairs by the number of their bucket, as the last run counted them."""
    known_from_a_run: bool = False
    """Whether the numbers of pairs and prompts were counted, or follow from the rows of a file."""

    @property
    def images_to_encode(self) -> float:
        return max(0, (self.images or 0) - self.images_stored)

    @property
    def scores_to_compute(self) -> int:
        return 0 if self.scores_complete else max(0, (self.scores or 0) - self.scores_stored)

    @property
    def prompts_to_encode(self) -> int:
        return max(0, (self.prompts or 0) - self.prompts_stored)


def cache_use(
    spec: ExperimentSpec, *, rows: int | None, visits: int, network: Architecture | None, side: int | None
) -> CacheUse:
    """`rows`: of the data, if known; `visits`: pairs that training is shown; `side`: the model's resolution."""
    cache, train = Path(spec.runtime.cache), spec.train
    data, model = load_facts(cache, spec.data), load_facts(cache, spec.model)
    pairs = data.get("pairs", rows)
    distinct = visits if pairs is None else min(visits, pairs)
    images = None
    if train.crop == "centre":  # random crops are encoded at each visit
        each = visits / max(distinct, 1)
        sides = 2 - 2 ** (1 - each) if train.flip else 1  # expected: a pair visited once is shown one way round
        images = round(2 * distinct * max(sides, 1))
    prompts = min(distinct, data.get("prompts", distinct)) + (train.prompt_dropout > 0)
    scores, stored, complete = None, 0, False
    if spec.reward is not None and spec.scores != "none":
        wanted = distinct + train.holdout if spec.scores == "visited" else pairs
        scores = None if wanted is None else 2 * min(wanted, pairs or wanted)
        key = load_facts(cache, spec.reward).get("key")
        if key and data.get("digest"):
            stored, complete = scored(cache, key, data["digest"])
    latents = texts = None
    sizes = spec.data.sizes(side) if spec.data.bucketed and side else []
    key = model.get("encoders")
    if key:
        windows = [None if size == (side, side) else size for size in sizes] or [None]
        latents = encoded(cache / "latents", *(latents_key(key, size) for size in windows), halves=train.halves)
        texts = encoded(cache / "prompts", key, halves=train.halves)
    return CacheUse(
        scores=scores,
        scores_stored=stored,
        scores_complete=complete,
        scores_of=spec.scores,
        images=images,
        images_stored=latents.rows if latents else 0,
        prompts=prompts,
        prompts_stored=texts.rows if texts else 0,
        latent_bytes=_row_bytes(latents, train.halves, 2 * network.latent if network else None),  # mean and deviation
        text_bytes=_row_bytes(texts, train.halves, network.text if network else None),
        pairs=pairs,
        buckets=sizes,
        filled=_counted(data.get("buckets"), len(sizes)),
        known_from_a_run=bool(data),
    )


def _counted(noted: object, sizes: int) -> dict[int, int]:
    """The buckets that a run counted, whose numbers are text in JSON."""
    if not isinstance(noted, dict):
        return {}
    found = {int(number): int(count) for number, count in noted.items()}
    return found if all(0 <= number < sizes for number in found) else {}


def _row_bytes(stored: Stored | None, halves: bool, numbers: int | None) -> int | None:
    """Of stored rows, else of the network's numbers."""
    if stored and stored.rows:
        return -(-stored.size // stored.rows)
    return None if numbers is None else (2 if halves else 4) * numbers
