"""The evaluation of a run: judges, prompts and the base's cached pictures, put together from the spec."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.app.build.live import LiveRun
from smpo.app.evaluate.judge_names import judge_names
from smpo.app.evaluate.prompt_prefix import good_prefix, prompted
from smpo.atomic import with_path
from smpo.engine.monitoring.tracker import Tracker
from smpo.evaluation.report.grid import before_after, contact_sheet
from smpo.evaluation.results.comparison import Judge
from smpo.evaluation.results.drift import Drift, DriftProbe, distances
from smpo.evaluation.results.evaluate import assist, evaluate
from smpo.evaluation.results.evaluation import Evaluation
from smpo.evaluation.sampling.generate import SamplingRanks, SamplingSettings
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.evaluation.sampling.slots import sample_all, slots, spread, spread_numbers
from smpo.experiment import EvaluateSpec, ExperimentSpec
from smpo.kinds import DRIFT_PROMPTS, Scorer
from smpo.registry.resolve import Resolved
from smpo.runs.store import RunFolder

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["assist_run", "evaluate_run", "preview", "write_evaluation"]


def evaluate_run(
    resolved: Resolved[ExperimentSpec],
    live: LiveRun,
    progress: Callable[[str, int, int], None],
    crew: SamplingRanks | None = None,
    /,
    **cheaper: int | None,
) -> Evaluation:
    """Policy against base on the spec's prompts, by all of its judges, and how far it has gone.

    `crew`: processes that call `assist_run` meanwhile. `cheaper` replaces settings of the evaluation, such as `limit`,
    for looks that need less precision; they leave distances out.
    """
    spec, wanted = resolved.spec, _wanted(resolved.spec).model_copy(update=cheaper)
    scorers = _scorers(resolved, live, wanted)
    card = resolved.card_of("evaluate.prompts")
    found = evaluate(
        prompted(live.session.denoiser, spec.objective.sampling()),
        wanted.prompts.load(),
        scorers,
        settings=SamplingSettings.of(wanted, batch=spec.runtime.encode_batch),
        judges=[
            Judge(name, scorer.key, reward.learned, scorer.key == live.reward_key)
            for (name, scorer), reward in zip(scorers.items(), wanted.rewards, strict=True)
        ],
        base_cache=_base_cache(live, wanted),
        progress=progress,
        ranks=crew,
    )
    return replace(
        found,
        prompt_set=card.name if card else wanted.prompts.use,
        role=wanted.prompts.role,
        drift=None if cheaper else _drift(found, live, scorers),
    )


def assist_run(resolved: Resolved[ExperimentSpec], live: LiveRun, crew: SamplingRanks) -> None:
    """This process's part of what `evaluate_run` draws and scores in the first one."""
    spec, wanted = resolved.spec, _wanted(resolved.spec)
    assist(
        prompted(live.session.denoiser, spec.objective.sampling()),
        wanted.prompts.load(),
        _scorers(resolved, live, wanted),
        settings=SamplingSettings.of(wanted, batch=spec.runtime.encode_batch),
        base_cache=_base_cache(live, wanted),
        ranks=crew,
    )


def _scorers(resolved: Resolved[ExperimentSpec], live: LiveRun, wanted: EvaluateSpec) -> dict[str, Scorer]:
    return {name: reward.load(live.runtime) for name, reward in zip(judge_names(resolved), wanted.rewards, strict=True)}


def _drift(found: Evaluation, live: LiveRun, scorers: Mapping[str, Scorer]) -> Drift | None:
    """Distances at the prompts whose pictures were kept, first images only.

    Training without a reference held one network; where a second doesn't fit beside it now, the distance that needs it
    is left out rather than the evaluation lost.
    """
    import torch

    numbers = [
        n for n in spread_numbers(found.prompts, DRIFT_PROMPTS) if n in found.kept_base and n in found.kept_policy
    ]
    if not numbers:
        return None
    denoiser, prompts = live.session.denoiser, [found.prompts[n] for n in numbers]
    base, policy = ([kept[n][0] for n in numbers] for kept in (found.kept_base, found.kept_policy))
    drawn = slots(found.prompts, images=1, seed=found.settings.seed)
    seeds = [drawn[n].seed for n in numbers]
    probe = DriftProbe.of(denoiser, [p.text for p in prompts], seeds, base, live.runtime.batch)
    try:
        ours = probe.predictions(denoiser, prefix=good_prefix(live.session.objective.sampling()))
        errors = (ours, probe.predictions(denoiser, reference=True))
    except torch.OutOfMemoryError:
        errors = None
    return distances(prompts, scorers, policy, base, errors, passes=2 * probe.passes)


def write_evaluation(folder: RunFolder, evaluation: Evaluation, spec: ExperimentSpec, tracker: Tracker) -> Path:
    """Numbers first, then the picture; returns the picture's file."""
    tracker.artefact(folder.write_text("evaluation.json", json.dumps(evaluation.to_dict(), indent=1)))
    tracker.metrics(evaluation.metrics(), spec.train.steps)
    grid = before_after(evaluation, title=f"{spec.name}: {spec.objective.use} after {spec.train.steps} updates")
    file = folder.samples / "before_after.png"
    with with_path(file):
        grid.save(file)
    tracker.images("before_after", grid, spec.train.steps)
    return file


def preview(spec: ExperimentSpec, live: LiveRun) -> Image.Image:
    """The policy on the first few evaluation prompts, always from the same seeds."""
    wanted = _wanted(spec)
    prompts = spread(wanted.prompts.load(), spec.runtime.preview_images)
    settings = replace(SamplingSettings.of(wanted, batch=spec.runtime.encode_batch), images=1)
    drawn = sample_all(prompted(live.session.denoiser, spec.objective.sampling()), prompts, settings)
    return contact_sheet([images[0] for images in drawn], [prompt.text for prompt in prompts])


def _wanted(spec: ExperimentSpec) -> EvaluateSpec:
    assert spec.evaluate is not None, "only specs that evaluate come here"
    return spec.evaluate


def _base_cache(live: LiveRun, wanted: EvaluateSpec) -> BaseCache:
    """By everything that shapes the base's pictures, apart from prompt and seed."""
    about = {"weights": live.session.denoiser.weights_key, "precision": live.runtime.precision}
    key = json.dumps(about | SamplingSettings.of(wanted).drawing(), sort_keys=True)
    return BaseCache(live.runtime.cache / "base", key)
