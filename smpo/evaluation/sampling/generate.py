"""One model's pictures of an evaluation and their scores: batch by batch, by one process or by several.

Several processes each take whole batches, those that one process would draw: on machines of one type the same shapes
go through the same kernels, so pictures and scores are the same to the last bit. They reach the first process as
files of a cache, exactly as the base's reach the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smpo.errors import RunError
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import ImageSampler, SamplingSettings, Slot, batches, draw
from smpo.kinds import Prompt, Scorer

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["Generation", "Progress", "SamplingRanks", "SamplingSettings", "SavedImages", "Scores"]

Progress = Callable[[str, int, int], None]
"""`progress("base" | "policy", pictures done, pictures in all)`."""
Scores = dict[str, NDArray[np.float64]]
SavedImages = dict[int, list["Picture"]]
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


@dataclass
class Generation:
    """One pass over all slots with one model; scores and kept pictures fill as it goes."""

    model: str
    """`base` draws from the denoiser's reference."""
    denoiser: ImageSampler
    prompts: Sequence[Prompt]
    scorers: Mapping[str, Scorer]
    settings: SamplingSettings
    keep: set[int]
    """Numbers of the prompts whose pictures are kept."""
    cache: BaseCache | None = None
    progress: Progress | None = None
    ranks: SamplingRanks | None = None
    scores: Scores = field(init=False)
    """By judge, `[P, I]`."""
    kept: dict[int, dict[int, Picture]] = field(init=False, default_factory=dict)
    """By prompt and image."""

    def run(self) -> tuple[Scores, SavedImages, int]:
        """`(scores by judge [P, I], kept pictures by prompt, number of pictures that came from the cache)`."""
        shape = (len(self.prompts), self.settings.images)
        self.scores = {name: np.full(shape, np.nan) for name in self.scorers}
        slots = self.settings.slots(self.prompts)
        done, stored, missing = self._look_up(slots)
        parts = self._parts(stored, missing)
        if self.ranks is None or self.cache is None:
            self._draw_and_score(parts, done, len(slots))
        else:
            self._share(self.ranks, self.cache, parts, done, len(slots))
        # Cached pictures come before drawn ones, so the images of a prompt need not have arrived in order.
        ordered = {prompt: [images[k] for k in sorted(images)] for prompt, images in sorted(self.kept.items())}
        return self.scores, ordered, len(slots) - len(missing)

    def _share(self, ranks: SamplingRanks, cache: BaseCache, parts: list[Part], done: int, total: int) -> None:
        """This process's batches. The first process also reads the others' from the cache, and draws those that
        aren't there."""
        ranks.barrier()  # no process writes before all have looked, lest they deal differently
        self._draw_and_score(parts[ranks.rank :: ranks.world], done, total, ranks.world)
        ranks.barrier()
        if ranks.rank:
            return
        cache.read()
        rest = [part for number, part in enumerate(parts) if number % ranks.world]
        _, stored, missing = self._look_up([slot for part, _ in rest for slot in part])
        ranks.drawn += sum(len(part) for part, pictures in rest if pictures is None) - len(missing)
        self._draw_and_score(self._parts(stored, missing), total - len(stored) - len(missing), total)

    def _draw_and_score(self, parts: Sequence[Part], done: int, total: int, processes: int = 1) -> None:
        """`processes` do as much as this one does, which counts for the progress."""
        for part, drawn in parts:
            if self.ranks is not None:
                self.ranks.check()
            pictures = drawn or draw(self.denoiser, part, self.settings, reference=self.model == "base")
            texts = [slot.text for slot in part]
            columns = {name: _score(name, scorer, pictures, texts) for name, scorer in self.scorers.items()}
            for place, (slot, picture) in enumerate(zip(part, pictures, strict=True)):
                for name, column in columns.items():
                    self.scores[name][slot.prompt, slot.image] = column[place]
                if slot.prompt in self.keep or isinstance(picture, np.ndarray):
                    self.kept.setdefault(slot.prompt, {})[slot.image] = picture
            if self.cache is not None:
                keyed = {scorer.key: columns[name] for name, scorer in self.scorers.items()}
                self.cache.write(part, pictures, keyed)
            done = min(done + len(part) * processes, total)
            if self.progress is not None:
                self.progress(self.model, done, total)

    def _look_up(self, slots: Sequence[Slot]) -> tuple[int, list[tuple[Slot, Picture]], list[Slot]]:
        """Fill in what the cache has: `(number of finished slots, stored pictures to score, slots to draw)`."""
        finished, stored, missing = 0, list[tuple[Slot, "Picture"]](), list[Slot]()
        if self.cache is None:
            return 0, [], list(slots)
        for slot in slots:
            known = self.cache.scores(slot)
            complete = all(scorer.key in known for scorer in self.scorers.values())
            wanted = slot.prompt in self.keep
            picture = self.cache.point(slot) if complete and not wanted else self.cache.picture(slot)
            if complete and (picture is not None or not wanted):
                for name, scorer in self.scorers.items():
                    self.scores[name][slot.prompt, slot.image] = known[scorer.key]
                if picture is not None:
                    self.kept.setdefault(slot.prompt, {})[slot.image] = picture
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


def _score(name: str, scorer: Scorer, pictures: Sequence[Any], texts: Sequence[str]) -> list[float]:
    """One float a picture, NaN included."""
    scores: Any = scorer(pictures, texts).tolist()
    flat = isinstance(scores, list) and not any(isinstance(score, list) for score in scores)
    if not flat or len(scores) != len(pictures):
        raise RunError(f"the reward `{name}` must return one score a picture, `[{len(pictures)}]`")
    return [float(score) for score in scores]
