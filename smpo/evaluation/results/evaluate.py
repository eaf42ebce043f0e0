"""Compare a trained policy with the base it started from: the same prompts, the same seeds, every judge.

Pictures stream through in batches: drawn, scored by every judge, and dropped, except those of a subset that is kept
for the before/after grid. The result is an `Evaluation`; nothing is printed, written or tracked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from smpo.errors import RunError
from smpo.evaluation.results.comparison import Judge, rank
from smpo.evaluation.results.evaluation import Evaluation
from smpo.evaluation.sampling.generate import Generation, Progress, SamplingRanks, SavedImages, Scores
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import ImageSampler, SamplingSettings, spread, spread_numbers
from smpo.kinds import Prompt, Scorer

__all__ = ["SamplingSettings", "assist", "evaluate", "score_model"]


def evaluate(
    denoiser: ImageSampler,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: SamplingSettings,
    judges: Sequence[Judge] = (),
    base_cache: BaseCache | None = None,
    progress: Progress | None = None,
    ranks: SamplingRanks | None = None,
) -> Evaluation:
    """Draw, score and compare.

    `scorers`: by the names of `judges`, which say whether they are learned and made the labels; without `judges` all
    are learned and none did. `base_cache`: where the base's pictures and scores are taken from and put; its key must
    name everything that shapes the base's pictures except prompt and seed. `ranks`: other processes, which call
    `assist` with the same arguments; needs a `base_cache` that all of them share.

    Raises `RunError` without prompts or judges, and when a judge returns something other than one score a picture.
    """
    prompts = spread(prompts, settings.limit)
    (base, kept_base, reused), (policy, kept_policy, _) = _both(
        denoiser, prompts, scorers, settings, base_cache, ranks, progress
    )
    judges = judges or [Judge(name, scorer.key, True, False) for name, scorer in scorers.items()]
    found = rank(prompts, judges, {"base": base, "policy": policy}, settings=settings)
    return replace(found.first, kept_base=kept_base, kept_policy=kept_policy, reused=reused)


def assist(
    denoiser: ImageSampler,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: SamplingSettings,
    base_cache: BaseCache,
    ranks: SamplingRanks,
) -> None:
    """Draw and score this process's batches of an evaluation that the first process makes."""
    _both(denoiser, spread(prompts, settings.limit), scorers, settings, base_cache, ranks, None)


def _both(
    denoiser: ImageSampler,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    settings: SamplingSettings,
    base_cache: BaseCache | None,
    ranks: SamplingRanks | None,
    progress: Progress | None,
) -> tuple[tuple[Scores, SavedImages, int], tuple[Scores, SavedImages, int]]:
    """Base and policy, each as `Generation.run` returns it."""
    if not prompts or not scorers:
        raise RunError(f"nothing to evaluate: {len(prompts)} prompts and {len(scorers)} judges")
    keep = set(spread_numbers(prompts, settings.keep))
    caches = {"base": base_cache, "policy": None if ranks is None else BaseCache(ranks.folder, "policy")}
    base, policy = (
        Generation(model, denoiser, prompts, scorers, settings, keep, cache, progress, ranks).run()
        for model, cache in caches.items()
    )
    return base, policy


def score_model(
    name: str,
    denoiser: ImageSampler,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: SamplingSettings,
    cache: BaseCache,
    progress: Progress | None = None,
) -> Scores:
    """One model's scores `[P, I]` by judge, on these very prompts (`settings.limit` was applied before).

    Every picture is in the cache afterwards.
    """

    def named(_: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total)

    return Generation("policy", denoiser, prompts, scorers, settings, set(), cache, named).run()[0]
