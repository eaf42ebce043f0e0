"""Compare a trained policy with the base it started from: the same prompts, the same seeds, every judge.

Pictures stream through in batches: drawn, scored by every judge, and let go of, except those of a subset that
is kept for the before/after grid. What comes back is an `Evaluation`; nothing is printed, written or tracked
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smpo.errors import RunError
from smpo.evaluation.results.evaluation import Evaluation, Judgement
from smpo.evaluation.sampling.generate import (
    Generation,
    Progress,
    SamplingRanks,
    SamplingSettings,
    SavedImages,
    Scores,
)
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import spread, spread_numbers
from smpo.evaluation.statistics.paired import compare, holm
from smpo.kinds import Denoiser, Prompt, Scorer

__all__ = ["SamplingSettings", "assist", "evaluate", "score_model"]


def evaluate(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: SamplingSettings,
    training_reward: str | None = None,
    learned: Mapping[str, bool] | None = None,
    base_cache: BaseCache | None = None,
    prompt_set: str = "",
    role: str = "",
    progress: Progress | None = None,
    crew: SamplingRanks | None = None,
) -> Evaluation:
    """Draw, score and compare.

    `scorers`: judges by the name they get in tables. `training_reward`: the `key` of the scorer that smoothed
    or made the training labels; a judge with that key is marked, and a warning says so when there is no
    other. `learned`: name -> False for closed-form judges, which are believed first. `base_cache`: where the
    base's pictures and scores are taken from and put; its key must name everything that shapes the base's
    pictures except prompt and seed. `prompt_set`, `role`: what the prompts are called and may be used for;
    they are only reported. `crew`: other processes, which call `assist` with the same words; needs a `base_cache`
    that all of them share.

    Raises `RunError` without prompts or judges, and when a judge returns something other than one score a
    picture.
    """
    prompts = spread(prompts, settings.limit)
    (base, kept_base, reused), (policy, kept_policy, _) = _both(
        denoiser, prompts, scorers, settings, base_cache, crew, progress
    )
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


def assist(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    settings: SamplingSettings,
    base_cache: BaseCache,
    crew: SamplingRanks,
) -> None:
    """Draw and score this process's batches of an evaluation that another process of the crew makes."""
    _both(denoiser, spread(prompts, settings.limit), scorers, settings, base_cache, crew, None)


def _both(
    denoiser: Denoiser,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    settings: SamplingSettings,
    base_cache: BaseCache | None,
    crew: SamplingRanks | None,
    progress: Progress | None,
) -> tuple[tuple[Scores, SavedImages, int], tuple[Scores, SavedImages, int]]:
    """Base and policy: `(scores, kept pictures, how many the cache spared us)`."""
    if not prompts or not scorers:
        raise RunError(f"nothing to evaluate: {len(prompts)} prompts and {len(scorers)} judges")
    todo = settings.slots(prompts)
    keep = set(spread_numbers(prompts, settings.keep))
    drawing = Generation(denoiser, scorers, settings, todo, keep, len(prompts), progress, crew)
    base = drawing.run("base", base_cache)
    return base, drawing.run("policy", None if crew is None else BaseCache(crew.folder, "policy"))


def score_model(
    name: str,
    denoiser: Denoiser,
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
    todo = settings.slots(prompts)

    def said(_: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total)

    scores, _, _ = Generation(denoiser, scorers, settings, todo, set(), len(prompts), said).run(
        "policy", cache
    )
    return scores
