"""`smpo eval`: draw the same prompts and seeds from each model, and compare them with the base and its distance."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from smpo.app.evaluate.judge_names import judge_names
from smpo.app.evaluate.models import BASE, ModelRef, load_model, sampling_of
from smpo.app.evaluate.prompt_prefix import good_prefix, prompted
from smpo.errors import RunError
from smpo.evaluation.results.comparison import Judge, ModelComparison, rank
from smpo.evaluation.results.drift import Drift, DriftProbe, distances
from smpo.evaluation.results.evaluate import SamplingSettings, score_model
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import spread, spread_numbers
from smpo.experiment import ExperimentSpec
from smpo.kinds import DRIFT_PROMPTS, Denoiser, Prompt, Scorer
from smpo.registry.resolve import Resolved

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.evaluation.sampling.slots import Slot
    from smpo.kinds import Picture

__all__ = ["PreparedComparison", "compare_models"]


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison that was made, and where its pictures are."""

    contest: ModelComparison
    resolved: Resolved[ExperimentSpec]
    models: tuple[ModelRef, ...]
    caches: dict[str, BaseCache]
    slots: tuple[Slot, ...]

    def picture(self, model: str, slot: Slot) -> Picture | None:
        return self.caches[model].picture(slot)


def compare_models(
    resolved: Resolved[ExperimentSpec],
    contenders: Sequence[ModelRef],
    progress: Callable[[str, int, int], None],
) -> PreparedComparison:
    """Draw, score and compare; pictures and scores in the caches are read. Models are in memory one at a time."""
    from smpo.app.build.device import live_runtime

    spec, wanted = resolved.spec, resolved.spec.evaluate
    if wanted is None:
        raise RunError("the spec evaluates nothing", help="give it an `evaluate:` block, or name another with `--spec`")
    runtime = replace(live_runtime(spec), reference=False)
    prompts = spread(wanted.prompts.load(), wanted.limit)
    makers = {model.name: _label_maker(model) for model in contenders}
    judge_by_key, prompt_sets = _recorded_names(contenders)
    names = judge_names(resolved)
    scorers: dict[str, Scorer] = {}
    judges = []
    for own, reward in zip(names, wanted.rewards, strict=True):
        scorer = reward.load(runtime)
        name = judge_by_key.get(scorer.key, own)
        scorers[name] = scorer
        judges.append(Judge(name, scorer.key, reward.learned, scorer.key in makers.values()))
    settings = SamplingSettings.of(wanted, batch=spec.runtime.encode_batch)
    models = (ModelRef(BASE, None), *contenders)
    scores, caches, drift = {}, {}, {}
    slots = tuple(settings.slots(prompts))
    measure = _DriftMeter(prompts, slots, scorers, runtime.batch)
    for model in models:
        denoiser, weights = load_model(spec.model, model, runtime)
        sampling = sampling_of(model)
        about = {"weights": weights, "precision": runtime.precision, **settings.drawing()}
        if prefix := good_prefix(sampling):
            about["prefix"] = prefix
        cache = caches[model.name] = BaseCache(runtime.cache / "base", json.dumps(about, sort_keys=True))
        scores[model.name] = score_model(
            model.name,
            prompted(denoiser, sampling),
            prompts,
            scorers,
            settings=settings,
            cache=cache,
            progress=progress,
        )
        drift[model.name] = measure(denoiser, cache, prefix)
        del denoiser
        gc.collect()
    card = resolved.card_of("evaluate.prompts")
    recorded = prompt_sets.get(tuple(prompt.text for prompt in prompts), wanted.prompts.use)
    contest = rank(
        prompts,
        judges,
        scores,
        settings=settings,
        prompt_set=card.name if card else recorded,
        role=wanted.prompts.role,
        label_makers=makers,
    )
    base = _kept(caches[BASE], measure.slots)
    evaluations = {
        name: replace(found, kept_base=base, kept_policy=_kept(caches[name], measure.slots), drift=drift[name])
        for name, found in contest.evaluations.items()
    }
    return PreparedComparison(replace(contest, evaluations=evaluations), resolved, models, caches, slots)


class _DriftMeter:
    """Distance of each model from the first one measured, the base. One network is in memory at a time, so the base's
    predictions are kept."""

    def __init__(
        self, prompts: Sequence[Prompt], slots: Sequence[Slot], scorers: Mapping[str, Scorer], batch: int
    ) -> None:
        chosen = set(spread_numbers(prompts, DRIFT_PROMPTS))
        self.slots = [slot for slot in slots if slot.prompt in chosen and slot.image == 0]
        self._prompts = [prompts[slot.prompt] for slot in self.slots]
        self._scorers, self._batch = scorers, batch
        self._base: tuple[list[Picture], DriftProbe, Tensor] | None = None

    def __call__(self, denoiser: Denoiser, cache: BaseCache, prefix: str) -> Drift | None:
        """None for the base itself, and for a model whose pictures can't be read."""
        pictures = [picture for slot in self.slots if (picture := cache.picture(slot)) is not None]
        if len(pictures) < len(self.slots):
            return None
        if self._base is None:
            texts, seeds = [slot.text for slot in self.slots], [slot.seed for slot in self.slots]
            probe = DriftProbe.of(denoiser, texts, seeds, pictures, self._batch)
            self._base = pictures, probe, probe.predictions(denoiser)
            return None
        base, probe, predicted = self._base
        errors = (probe.predictions(denoiser, prefix=prefix), predicted)
        return distances(self._prompts, self._scorers, pictures, base, errors, passes=probe.passes)


def _kept(cache: BaseCache, slots: Sequence[Slot]) -> dict[int, list[Picture]]:
    """Cached pictures by prompt, for the reward-hacking panels."""
    return {slot.prompt: [picture] for slot in slots if (picture := cache.picture(slot)) is not None}


def _recorded_names(models: Sequence[ModelRef]) -> tuple[dict[str, str], dict[tuple[str, ...], str]]:
    """`(scorer key -> name, prompt texts -> name of their set)` in the runs' evaluations: a resolved spec has
    components, not the cards they came from."""
    judges: dict[str, str] = {}
    sets: dict[tuple[str, ...], str] = {}
    for model in models:
        found = _json(model, "evaluation.json")
        try:
            judges |= {judgement["key"]: judgement["name"] for judgement in found["judgements"]}
            sets[tuple(prompt["text"] for prompt in found["prompts"])] = found["prompt_set"]
        except (LookupError, TypeError):
            continue  # no run, a run that wasn't evaluated, or long ago
    return judges, sets


def _label_maker(model: ModelRef) -> str | None:
    """The key of the reward that smoothed the labels of a run, from its lock file."""
    lock = _json(model, "lock.json")
    weights = lock.get("weights") if isinstance(lock, dict) else None
    key = weights.get("reward") if isinstance(weights, dict) else None
    return key if isinstance(key, str) else None


def _json(model: ModelRef, name: str) -> Any:
    """A file of the model's run; None without a run, or where it can't be read."""
    if model.run is None:
        return None
    try:
        return json.loads((model.run.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
