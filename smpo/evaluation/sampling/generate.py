"""One model's pictures of an evaluation and their scores: batch by batch, by one process or by several.

Several processes each take whole batches, those that one process would draw: on machines of one type the same shapes
go through the same kernels, so pictures and scores are the same to the last bit. They reach the first process as
files of a cache, exactly as the base's reach the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smpo.errors import RunError
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import Slot, batches, sample_slots, slots
from smpo.kinds import Denoiser, Prompt, Scorer

if TYPE_CHECKING:
    from smpo.experiment import EvaluateSpec
    from smpo.kinds import Picture

__all__ = ["Generation", "Progress", "SamplingRanks", "SamplingSettings", "SavedImages", "Scores"]

Progress = Callable[[str, int, int], None]
"""`progress("base" | "policy", pictures done, pictures in all)`."""
Scores = dict[str, NDArray[np.float64]]
SavedImages = dict[int, list["Picture"]]
_Kept = dict[int, dict[int, "Picture"]]
"""By prompt and image."""
Part = tuple[list[Slot], "list[Picture] | None"]
"""A batch, and its pictures where they are drawn already."""


@dataclass
class SamplingRanks:
    """The processes that draw one evaluation, as each of them sees it. The first, of rank 0, makes the evaluation."""

    rank: int
    world: int
    barrier: Callable[[], None]
    """Returns when all have called it. Raises where one won't."""
    check: Callable[[], None]
    """Raises where another process has failed; for between batches."""
    folder: Path
    """Of all processes, and empty: for the policy's pictures."""
    drawn: int = 0
    """Pictures that the others have drawn, as the first one knows when it is done."""


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
        """The settings that a spec's `evaluate` block asks for."""
        return cls(spec.guidance, spec.steps, spec.images, spec.seed, spec.limit, batch, sizes=spec.shapes)

    def slots(self, prompts: Sequence[Prompt]) -> list[Slot]:
        """The pictures of these prompts."""
        return slots(prompts, images=self.images, seed=self.seed, sizes=self.sizes)

    def drawing(self) -> dict[str, Any]:
        """What decides, beside model, prompt and seed, what a picture looks like: for the keys of caches."""
        sized = {"sizes": [list(size) for size in self.sizes]} if self.sizes else {}
        return {"guidance": self.guidance, "steps": self.steps, **sized}


@dataclass(frozen=True)
class Generation:
    """One pass over all slots with one of the two models."""

    denoiser: Denoiser
    scorers: Mapping[str, Scorer]
    settings: SamplingSettings
    todo: Sequence[Slot]
    keep: set[int]
    prompts: int
    progress: Progress | None
    ranks: SamplingRanks | None = None

    def run(self, model: str, cache: BaseCache | None) -> tuple[Scores, SavedImages, int]:
        """`(scores by judge [P, I], kept pictures by prompt, how many pictures the cache spared us)`."""
        scores: Scores = {
            name: np.full((self.prompts, self.settings.images), np.nan) for name in self.scorers
        }
        kept: dict[int, dict[int, Picture]] = {}
        done, stored, missing = 0, list[tuple[Slot, "Picture"]](), list(self.todo)
        if cache is not None:
            done, stored, missing = self._look_up(cache, self.todo, scores, kept)
        reused, parts = len(self.todo) - len(missing), self._parts(stored, missing)
        if self.ranks is None or cache is None:
            self._do(model, parts, cache, scores, kept, done)
        else:
            self._share(self.ranks, model, parts, cache, scores, kept, done)
        # Cached pictures come before drawn ones, so the images of a prompt need not have arrived in order.
        ordered = {prompt: [kept[prompt][image] for image in sorted(kept[prompt])] for prompt in sorted(kept)}
        return scores, ordered, reused

    def _share(
        self,
        crew: SamplingRanks,
        model: str,
        parts: list[Part],
        cache: BaseCache,
        scores: Scores,
        kept: _Kept,
        done: int,
    ) -> None:
        """This process's batches. The first one also takes in what the others have left in the cache, and does what it
        doesn't find there."""
        crew.barrier()  # nobody writes before all have looked, lest they deal differently
        self._do(model, parts[crew.rank :: crew.world], cache, scores, kept, done, crew.world)
        crew.barrier()
        if crew.rank:
            return
        cache.read()
        rest = [part for number, part in enumerate(parts) if number % crew.world]
        theirs = [slot for part, _ in rest for slot in part]
        _, stored, missing = self._look_up(cache, theirs, scores, kept)
        crew.drawn += sum(len(part) for part, pictures in rest if pictures is None) - len(missing)
        done = len(self.todo) - len(stored) - len(missing)
        self._do(model, self._parts(stored, missing), cache, scores, kept, done)

    def _do(
        self, model: str, parts: Sequence[Part], cache: BaseCache | None, scores: Scores, kept: _Kept, done: int,
        of_how_many: int = 1,
    ) -> None:  # fmt: skip
        """Draw what isn't drawn, and score. `of_how_many` processes do as much as this one does."""
        for part, drawn in parts:
            if self.ranks is not None:
                self.ranks.check()
            pictures = self._draw(part, reference=model == "base") if drawn is None else drawn
            texts = [slot.text for slot in part]
            columns = {name: _score(name, scorer, pictures, texts) for name, scorer in self.scorers.items()}
            for place, (slot, picture) in enumerate(zip(part, pictures, strict=True)):
                for name, column in columns.items():
                    scores[name][slot.prompt, slot.image] = column[place]
                if slot.prompt in self.keep or isinstance(picture, np.ndarray):
                    kept.setdefault(slot.prompt, {})[slot.image] = picture
            if cache is not None:
                keyed = {scorer.key: columns[name] for name, scorer in self.scorers.items()}
                cache.write(part, pictures, keyed)
            done = min(done + len(part) * of_how_many, len(self.todo))
            if self.progress is not None:
                self.progress(model, done, len(self.todo))

    def _look_up(
        self, cache: BaseCache, todo: Sequence[Slot], scores: Scores, kept: _Kept
    ) -> tuple[int, list[tuple[Slot, Picture]], list[Slot]]:
        """Fill in what is known. `(how many that finished, stored pictures to score, slots to draw)`."""
        finished, stored, missing = 0, list[tuple[Slot, "Picture"]](), list[Slot]()
        for slot in todo:
            known = cache.scores(slot)
            complete = all(scorer.key in known for scorer in self.scorers.values())
            wanted = slot.prompt in self.keep
            picture = cache.point(slot) if complete and not wanted else cache.picture(slot)
            if complete and (picture is not None or not wanted):
                for name, scorer in self.scorers.items():
                    scores[name][slot.prompt, slot.image] = known[scorer.key]
                if picture is not None:
                    kept.setdefault(slot.prompt, {})[slot.image] = picture
                finished += 1
            elif picture is not None:
                stored.append((slot, picture))
            else:
                missing.append(slot)
        return finished, stored, missing

    def _parts(self, stored: Sequence[tuple[Slot, Picture]], missing: Sequence[Slot]) -> list[Part]:
        """Batches: of pictures that only have to be scored, and of slots that have to be drawn too."""
        size = self.settings.batch
        scored = [stored[start : start + size] for start in range(0, len(stored), size)]
        return [([slot for slot, _ in part], [picture for _, picture in part]) for part in scored] + [
            (part, None) for part in batches(missing, size)
        ]

    def _draw(self, part: Sequence[Slot], *, reference: bool) -> list[Picture]:
        ((_, pictures),) = sample_slots(
            self.denoiser,
            part,
            guidance=self.settings.guidance,
            steps=self.settings.steps,
            batch=len(part),
            reference=reference,
        )
        return pictures


def _score(name: str, scorer: Scorer, pictures: Sequence[Any], texts: Sequence[str]) -> list[float]:
    """One float a picture; NaN is let through, and counted later."""
    scores: Any = scorer(pictures, texts).tolist()
    flat = isinstance(scores, list) and not any(isinstance(score, list) for score in scores)
    if not flat or len(scores) != len(pictures):
        raise RunError(f"the reward `{name}` must return one score a picture, `[{len(pictures)}]`")
    return [float(score) for score in scores]
