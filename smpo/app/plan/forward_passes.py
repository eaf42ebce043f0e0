"""Passes of each network beyond training: samples, scores, looks at held-out pairs. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from smpo.app.build.portions import updates_together
from smpo.app.evaluate.judge_names import judge_names
from smpo.app.plan.cache_use import CacheUse
from smpo.experiment import ExperimentSpec
from smpo.kinds import DRIFT_PROMPTS, DRIFT_TIMESTEPS, HELD_TIMESTEPS
from smpo.registry.resolve import Resolved

__all__ = [
    "Prepared",
    "Sampled",
    "Scored",
    "diagnosis_passes",
    "looks_every",
    "prepared",
    "sampled",
    "scored",
]


@dataclass(frozen=True)
class Sampled:
    """Pictures that are drawn; a forward with guidance counts as two."""

    prompts: int | None = None
    """Of the evaluation; None where they can't be read here."""
    samples: int = 0
    """Of the evaluation, both models together."""
    passes: int = 0
    """Of the evaluation: to draw, and to measure the policy's drift."""
    previews: int = 0
    preview_passes: int = 0
    area: float = 1.0
    """Of a picture, on average, as a share of the model's own square."""


def sampled(spec: ExperimentSpec) -> Sampled:
    """The evaluation's pictures, at most (the base's may lie in the cache), and the previews'."""
    wanted = spec.evaluate
    if wanted is None or not wanted.prompts.is_local():
        return Sampled()
    prompts = len(wanted.prompts.load())
    each = wanted.steps * (2 if wanted.guidance > 1 else 1)
    limited = min(prompts, wanted.limit or prompts)
    samples = 2 * limited * wanted.images
    previews = min(prompts, spec.runtime.preview_images) * _previews(spec)
    far = 2 * min(limited, DRIFT_PROMPTS) * DRIFT_TIMESTEPS
    area = _area(spec)
    return Sampled(limited, samples, samples * each + far, previews, previews * each, area)


def _area(spec: ExperimentSpec) -> float:
    side, shapes = spec.model.facts().resolution, spec.evaluate.shapes if spec.evaluate else ()
    if not shapes or side is None:
        return 1.0
    return sum(height * width for height, width in shapes) / len(shapes) / side**2


def _previews(spec: ExperimentSpec) -> int:
    """How many grids there are: one before training, none after the last update."""
    every = spec.runtime.preview_every
    return 1 + (spec.train.steps - 1) // every if every else 0


DECODE_MS, PREPROCESS_MS, PLACE_MS = 8.0, 8.8, 7.8
"""Of one core for a JPEG of 1024 pixels: to decode it, to lay it out for a CLIP, to place it for an encoder
(benchmarks/results/preparation.json)."""


@dataclass(frozen=True)
class Prepared:
    """What is scored and encoded before pairs train, at most, beyond what the caches hold."""

    scored: int = 0
    """Images. Each is decoded and preprocessed."""
    encoded: int = 0
    """Images through the VAE. Each is decoded again, and placed."""
    score_tflop: float = 0.0
    encode_tflop: float | None = None
    core_hours: float = 0.0
    """Of CPU work on pictures, as if they were JPEGs of 1024 pixels; `runtime.workers` share it."""
    portions: int = 1
    """In which training waits for it; the first update waits for the first alone (`runtime.prepare`)."""


def prepared(spec: ExperimentSpec, caches: CacheUse, score_tflop: float, encode_tflop: float | None) -> Prepared:
    """`encode_tflop`: of one image, where the model is known."""
    visits = spec.train.steps * spec.train.batch
    encoded = round(caches.images_to_encode) if spec.train.crop == "centre" else 2 * visits
    scored = caches.scores_to_compute
    work = scored * (DECODE_MS + PREPROCESS_MS) + encoded * (DECODE_MS + PLACE_MS)
    together = updates_together(spec)
    return Prepared(
        scored=scored,
        encoded=encoded,
        score_tflop=score_tflop,
        encode_tflop=None if encode_tflop is None else encode_tflop * encoded,
        core_hours=work / 3.6e6,
        portions=-(-spec.train.steps // together) if spec.runtime.prepare == "ahead" else 1,
    )


@dataclass(frozen=True)
class Scored:
    """TFLOP of rewards, and the rewards without a count, in words."""

    reward: float = 0.0
    """Over the pairs' images that aren't scored yet."""
    judges: float = 0.0
    """Over the evaluation's samples."""
    unknown: list[str] = field(default_factory=list)


def scored(resolved: Resolved[ExperimentSpec], caches: CacheUse, samples: int) -> Scored:
    """What scoring takes."""
    spec, unknown = resolved.spec, []
    training = judging = 0.0
    if spec.reward is not None and spec.scores != "none" and not caches.scores_complete:
        each = spec.reward.tflop()
        if each is None:
            unknown.append(f"scoring the pairs by {_named(resolved, 'reward')}")
        elif caches.scores is None:
            unknown.append("scoring the pairs, whose number can't be known before they are here")
        else:
            training = each * caches.scores_to_compute
    for name, judge in zip(judge_names(resolved), spec.evaluate.rewards if spec.evaluate else (), strict=True):
        each = judge.tflop()
        if each is None:
            unknown.append(f"judging by `{name}`")
        else:
            judging += each * samples
    if spec.evaluate is not None and not spec.evaluate.prompts.is_local():
        unknown.append("the evaluation, whose prompts aren't here yet")
    return Scored(training, judging, unknown)


def _named(resolved: Resolved[ExperimentSpec], slot: str) -> str:
    card = resolved.card_of(slot)
    return f"`{card.name if card else resolved.components()[slot].use}`"


def looks_every(spec: ExperimentSpec) -> int:
    """Updates between looks at the held-out pairs."""
    return spec.runtime.diagnose_every or max(1, spec.train.steps // 10)


def diagnosis_passes(spec: ExperimentSpec) -> int:
    """Forwards for the looks at held-out pairs, beside training."""
    if not spec.train.holdout:
        return 0
    steps, every = spec.train.steps, looks_every(spec)
    looks = steps // every + (steps % every > 0) + 1  # the first is the base's
    return looks * 2 * spec.train.holdout * HELD_TIMESTEPS
