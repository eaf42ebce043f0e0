"""`smpo eval`: draw the same prompts and seeds from each model, and compare them with the base and its distance."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from smpo.app.evaluate.judge_names import judge_names
from smpo.app.evaluate.models import BASE, ModelRef, load_model, sampling_of
from smpo.app.evaluate.prompt_prefix import good_prefix, prompted
from smpo.errors import RunError
from smpo.evaluation.results.comparison import Judge, ModelComparison, rank
from smpo.evaluation.results.drift import Drift, DriftProbe, distances
from smpo.evaluation.results.evaluate import SamplingSettings, score_model
from smpo.evaluation.results.evaluation import Evaluation, Judgement
from smpo.evaluation.results.reward_hacking_panel import RewardHackingReport
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
    """A contest that was held, and where its pictures are."""

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
    """Draw, score and compare; what was drawn or scored before is read. Models are in memory one at a time."""
    from smpo.app.build.device import live_runtime

    spec, wanted = resolved.spec, resolved.spec.evaluate
    if wanted is None:
        raise RunError(
            "the spec evaluates nothing", help="give it an `evaluate:` block, or name another with `--spec`"
        )
    runtime = replace(live_runtime(spec), reference=False)
    prompts = spread(wanted.prompts.load(), wanted.limit)
    told = _told(contenders)
    loaded = [reward.load(runtime) for reward in wanted.rewards]
    names = [
        told.judges.get(scorer.key, name) for scorer, name in zip(loaded, judge_names(resolved), strict=True)
    ]
    scorers = dict(zip(names, loaded, strict=True))
    trained = {key for one in contenders if (key := _label_maker(one)) is not None}
    judges = [
        Judge(name, scorers[name].key, reward.learned, scorers[name].key in trained)
        for name, reward in zip(names, wanted.rewards, strict=True)
    ]
    settings = SamplingSettings.of(wanted, batch=spec.runtime.encode_batch)
    everybody = (ModelRef(BASE, None), *contenders)
    scores, caches, drift = {}, {}, {}
    drawn = tuple(settings.slots(prompts))
    near = _Nearness(prompts, drawn, scorers, runtime.batch)
    for one in everybody:
        denoiser, key = load_model(spec.model, one, runtime)
        about = {
            "weights": key,
            "precision": runtime.precision,
            **settings.drawing(),
        }
        sampling = sampling_of(one)
        if prefix := good_prefix(sampling):
            about["prefix"] = prefix
        caches[one.name] = BaseCache(runtime.cache / "base", json.dumps(about, sort_keys=True))
        scores[one.name] = score_model(
            one.name,
            prompted(denoiser, sampling),
            prompts,
            scorers,
            settings=settings,
            cache=caches[one.name],
            progress=progress,
        )
        if (far := near.measure(denoiser, caches[one.name], good_prefix(sampling))) is not None:
            drift[one.name] = far
        del denoiser
        gc.collect()
    card = resolved.card_of("evaluate.prompts")
    contest = rank(
        prompts,
        judges,
        scores,
        settings={
            "guidance": wanted.guidance,
            "steps": wanted.steps,
            "images": wanted.images,
            "seed": wanted.seed,
            **({"sizes": wanted.sizes} if wanted.sizes else {}),
        },
        prompt_set=card.name if card else told.sets.get(tuple(p.text for p in prompts), wanted.prompts.use),
        role=wanted.prompts.role,
        drift=drift,
    )
    contest = replace(contest, panels=_panels(contest, everybody, caches, near.slots, settings))
    return PreparedComparison(contest, resolved, everybody, caches, drawn)


class _Nearness:
    """Measures how far each model is from the first that is shown to it, the base. One network is in memory at a time,
    so what the base said is kept."""

    def __init__(
        self, prompts: Sequence[Prompt], drawn: Sequence[Slot], scorers: Mapping[str, Scorer], batch: int
    ) -> None:
        chosen = set(spread_numbers(prompts, DRIFT_PROMPTS))
        self.slots = [slot for slot in drawn if slot.prompt in chosen and slot.image == 0]
        self._prompts = [prompts[slot.prompt] for slot in self.slots]
        self._scorers, self._batch = scorers, batch
        self._base: tuple[list[Picture], DriftProbe, Tensor] | None = None

    def measure(self, denoiser: Denoiser, cache: BaseCache, prefix: str) -> Drift | None:
        """None for the base itself, and for a model whose pictures can't be read."""
        found = [cache.picture(slot) for slot in self.slots]
        pictures = [picture for picture in found if picture is not None]
        if len(pictures) < len(found):
            return None
        if self._base is None:
            texts, seeds = [slot.text for slot in self.slots], [slot.seed for slot in self.slots]
            probe = DriftProbe.of(denoiser, texts, seeds, pictures, self._batch)
            self._base = pictures, probe, probe.predictions(denoiser)
            return None
        base, probe, said = self._base
        errors = (probe.predictions(denoiser, prefix=prefix), said)
        return distances(self._prompts, self._scorers, pictures, base, errors, passes=probe.passes)


@dataclass
class _Told:
    """What runs called their judges and prompts: a resolved spec knows components, not the cards they came from."""

    judges: dict[str, str] = field(default_factory=dict)
    """Scorer key -> name."""
    sets: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Texts -> name."""


def _told(contenders: Sequence[ModelRef]) -> _Told:
    told = _Told()
    for one in contenders:
        if one.run is None:
            continue
        try:
            found = json.loads((one.run.path / "evaluation.json").read_text(encoding="utf-8"))
            told.judges |= {judgement["key"]: judgement["name"] for judgement in found["judgements"]}
            told.sets[tuple(prompt["text"] for prompt in found["prompts"])] = found["prompt_set"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a run that wasn't evaluated, or long ago
    return told


def _panels(
    contest: ModelComparison,
    contenders: Sequence[ModelRef],
    caches: Mapping[str, BaseCache],
    looked_at: Sequence[Slot],
    settings: SamplingSettings,
) -> dict[str, RewardHackingReport]:
    """What an evaluation of each model alone would say of its gain, from the cached pictures."""

    def kept(model: str) -> dict[int, list[Picture]]:
        found = {slot.prompt: caches[model].picture(slot) for slot in looked_at}
        return {number: [picture] for number, picture in found.items() if picture is not None}

    base, panels = kept(contest.base), dict[str, RewardHackingReport]()
    for one in contenders[1:]:
        made = _label_maker(one)
        judgements = tuple(
            Judgement(
                name=judge.name,
                key=judge.key,
                made_labels=judge.key == made,
                learned=judge.learned,
                base=contest.scores[contest.base][judge.name],
                policy=contest.scores[one.name][judge.name],
                comparison=(standing := contest.result(one.name, judge.name)).comparison,
                p_holm=standing.p_holm,
            )
            for judge in contest.judges
        )
        panels[one.name] = Evaluation(
            prompts=contest.prompts,
            judgements=judgements,
            guidance=settings.guidance,
            steps=settings.steps,
            images=settings.images,
            seed=settings.seed,
            kept_base=base,
            kept_policy=kept(one.name),
            drift=contest.drift.get(one.name),
            sizes=settings.sizes,
        ).panel
    return panels


def _label_maker(one: ModelRef) -> str | None:
    """The key of the reward that smoothed the labels of a run, from its lock file."""
    if one.run is None:
        return None
    try:
        key = json.loads(one.run.lock_file.read_text(encoding="utf-8"))["weights"].get("reward")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
    return key if isinstance(key, str) else None
