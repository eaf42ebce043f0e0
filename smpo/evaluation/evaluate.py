"""Compare a trained policy with the base it started from: the same prompts, the same seeds, every judge.

Pictures stream through in batches: drawn, scored by every judge, and let go of, except those of a subset that
is kept for the before/after grid. What comes back is an `Evaluation`; nothing is printed, written or tracked
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smpo.errors import RunError
from smpo.evaluation.base_cache import BaseCache
from smpo.evaluation.result import Evaluation, Judgement
from smpo.evaluation.sampling import Slot, sample_slots, slots, spread, spread_numbers
from smpo.evaluation.statistics import compare, holm
from smpo.kinds import Denoiser, Prompt, Scorer

if TYPE_CHECKING:
    from smpo.experiment import EvaluateSpec
    from smpo.kinds import Picture

__all__ = ["Settings", "evaluate", "score_model"]

Progress = Callable[[str, int, int], None]
"""`progress("base" | "policy", pictures done, pictures in all)`."""
Scores = dict[str, NDArray[np.float64]]
Kept = dict[int, list["Picture"]]


@dataclass(frozen=True)
class Settings:
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
    def of(cls, spec: EvaluateSpec, *, batch: int = 32) -> Settings:
        """The settings that a spec's `evaluate` block asks for."""
        return cls(spec.guidance, spec.steps, spec.images, spec.seed, spec.limit, batch, sizes=spec.shapes)

    def slots(self, prompts: Sequence[Prompt]) -> list[Slot]:
        """The pictures of these prompts."""
        return slots(prompts, images=self.images, seed=self.seed, sizes=self.sizes)

    def drawing(self) -> dict[str, Any]:
        """What decides, beside model, prompt and seed, what a picture looks like: for the keys of caches."""
        sized = {"sizes": [list(size) for size in self.sizes]} if self.sizes else {}
        return {"guidance": self.guidance, "steps": self.steps, **sized}


def evaluate(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: Settings,
    training_reward: str | None = None,
    learned: Mapping[str, bool] | None = None,
    base_cache: BaseCache | None = None,
    prompt_set: str = "",
    role: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Draw, score and compare.

    `scorers`: judges by the name they get in tables. `training_reward`: the `key` of the scorer that smoothed
    or made the training labels; a judge with that key is marked, and a warning says so when there is no
    other. `learned`: name -> False for closed-form judges, which are believed first. `base_cache`: where the
    base's pictures and scores are taken from and put; its key must name everything that shapes the base's
    pictures except prompt and seed. `prompt_set`, `role`: what the prompts are called and may be used for;
    they are only reported.

    Raises `RunError` without prompts or judges, and when a judge returns something other than one score a
    picture.
    """
    prompts = spread(prompts, settings.limit)
    if not prompts or not scorers:
        raise RunError(f"nothing to evaluate: {len(prompts)} prompts and {len(scorers)} judges")
    todo = settings.slots(prompts)
    keep = set(spread_numbers(prompts, settings.keep))

    drawing = _Drawing(denoiser, scorers, settings, todo, keep, len(prompts), progress)
    base, kept_base, reused = drawing.run("base", base_cache)
    policy, kept_policy, _ = drawing.run("policy", None)

    groups = [prompt.group or f"text: {prompt.text}" for prompt in prompts]  # one text twice is one cluster
    comparisons = {
        name: compare(policy[name].mean(axis=1), base[name].mean(axis=1), groups) for name in scorers
    }
    adjusted = holm([comparisons[name].p_value for name in scorers])
    judgements = [
        Judgement(
            name=name,
            key=scorer.key,
            made_labels=training_reward is not None and scorer.key == training_reward,
            learned=(learned or {}).get(name, True),
            base=base[name],
            policy=policy[name],
            comparison=comparisons[name],
            p_holm=p_holm,
        )
        for (name, scorer), p_holm in zip(scorers.items(), adjusted, strict=True)
    ]
    return Evaluation(
        prompts=tuple(prompts),
        judgements=tuple(judgements),
        guidance=settings.guidance,
        steps=settings.steps,
        images=settings.images,
        seed=settings.seed,
        prompt_set=prompt_set,
        role=role,
        kept_base=kept_base,
        kept_policy=kept_policy,
        reused=reused,
        sizes=settings.sizes,
    )


def score_model(
    name: str,
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: Settings,
    cache: BaseCache,
    progress: Progress | None = None,
) -> Scores:
    """One model's scores `[P, I]` by judge, on these very prompts (`settings.limit` was applied before).

    Every picture is in the cache afterwards.
    """
    todo = settings.slots(prompts)

    def said(_: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total)

    scores, _, _ = _Drawing(denoiser, scorers, settings, todo, set(), len(prompts), said).run("policy", cache)
    return scores


@dataclass(frozen=True)
class _Drawing:
    """One pass over all slots with one of the two models."""

    denoiser: Denoiser
    scorers: Mapping[str, Scorer]
    settings: Settings
    todo: Sequence[Slot]
    keep: set[int]
    prompts: int
    progress: Progress | None

    def run(self, model: str, cache: BaseCache | None) -> tuple[Scores, Kept, int]:
        """`(scores by judge [P, I], kept pictures by prompt, how many pictures the cache spared us)`."""
        scores: Scores = {
            name: np.full((self.prompts, self.settings.images), np.nan) for name in self.scorers
        }
        kept: dict[int, dict[int, Picture]] = {}
        done, stored, missing = 0, list[tuple[Slot, "Picture"]](), list(self.todo)
        if cache is not None:
            done, stored, missing = self._look_up(cache, scores, kept)
        reused = len(self.todo) - len(missing)
        for part, pictures in chain(self._stored(stored), self._draw(missing, reference=model == "base")):
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
            done += len(part)
            if self.progress is not None:
                self.progress(model, done, len(self.todo))
        # Cached pictures come before drawn ones, so the images of a prompt need not have arrived in order.
        ordered = {prompt: [kept[prompt][image] for image in sorted(kept[prompt])] for prompt in sorted(kept)}
        return scores, ordered, reused

    def _look_up(
        self, cache: BaseCache, scores: Scores, kept: dict[int, dict[int, Picture]]
    ) -> tuple[int, list[tuple[Slot, Picture]], list[Slot]]:
        """Fill in what is known. `(how many that finished, stored pictures to score, slots to draw)`."""
        finished, stored, missing = 0, list[tuple[Slot, "Picture"]](), list[Slot]()
        for slot in self.todo:
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

    def _stored(self, stored: Sequence[tuple[Slot, Picture]]) -> Iterator[tuple[list[Slot], list[Picture]]]:
        for start in range(0, len(stored), self.settings.batch):
            part = stored[start : start + self.settings.batch]
            yield [slot for slot, _ in part], [picture for _, picture in part]

    def _draw(self, todo: Sequence[Slot], *, reference: bool) -> Iterator[tuple[list[Slot], list[Picture]]]:
        return sample_slots(
            self.denoiser,
            todo,
            guidance=self.settings.guidance,
            steps=self.settings.steps,
            batch=self.settings.batch,
            reference=reference,
        )


def _score(name: str, scorer: Scorer, pictures: Sequence[Any], texts: Sequence[str]) -> list[float]:
    """One float a picture; NaN is let through, and counted later."""
    scores: Any = scorer(pictures, texts).tolist()
    flat = isinstance(scores, list) and not any(isinstance(score, list) for score in scores)
    if not flat or len(scores) != len(pictures):
        raise RunError(f"the reward `{name}` must return one score a picture, `[{len(pictures)}]`")
    return [float(score) for score in scores]
