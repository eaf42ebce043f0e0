"""Did pictures get better, or did the reward get fooled? What an optimised reward says against everything else.

Gauges that no reward looks at are read on pairs of pictures, policy and base at the same prompt and seed:

* saturation: mean of max(RGB) - min(RGB); preference tuning likes it garish;
* high-frequency energy: share of the power above a quarter of the sampling rate; grids of hacked rewards live there;
* drift: root mean square difference from the base's picture, or distance in the plane; and, where they were measured,
  the distances in features and in predicted noise (`smpo.evaluation.results.drift`);
* diversity: mean distance between a model's pictures of different prompts; a collapse makes them alike.

Each is reported as policy over base with an interval over prompts. The verdict counts what the intervals resolve, in
words; it looks at numbers only, so it ends with what to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smpo.evaluation.results.reward_hacking_panel import Proxy, RewardHackingReport
from smpo.evaluation.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from smpo.evaluation.results.evaluation import Evaluation, Judgement
    from smpo.kinds import Picture

__all__ = ["reward_hacking"]

Floats = NDArray[np.float64]
SIDE = 64
SMALL = 0.1
"""Standard deviations of the base's scores: a judge that fell by less, though surely, is a price and no proof."""


def reward_hacking(evaluation: Evaluation) -> RewardHackingReport:
    """The panel of an evaluation, from its scores and the pictures that were kept."""
    gains = {judgement.name: _standardised(judgement) for judgement in evaluation.judgements}
    made = next((judgement for judgement in evaluation.judgements if judgement.made_labels), None)
    others = [judgement for judgement in evaluation.judgements if not judgement.made_labels]
    gap = None
    if made is not None and (told := [g for one in others if (g := gains[one.name]) is not None]):
        ours = gains[made.name]
        gap = None if ours is None else ours - float(np.mean(told))
    gauges = _gauges(evaluation.kept_base, evaluation.kept_policy) + _measured(evaluation)
    return RewardHackingReport(
        made.name if made else None, gains, gap, gauges, _verdict(made, others, gains, gauges)
    )


def _standardised(judgement: Judgement) -> float | None:
    base = judgement.base.mean(axis=1)
    spread = float(np.nanstd(base)) if np.isfinite(base).any() else 0.0
    gain = judgement.comparison.gain
    return None if gain is None or spread == 0 else gain / spread


def _gauges(
    base: Mapping[int, Sequence[Picture]], policy: Mapping[int, Sequence[Picture]]
) -> tuple[Proxy, ...]:
    """Over the prompts of which both kept a picture: their first images."""
    prompts = [number for number in base if number in policy]
    if len(prompts) < 2:
        return ()
    before, after = [base[n][0] for n in prompts], [policy[n][0] for n in prompts]
    if isinstance(before[0], np.ndarray):
        first, second = (
            np.stack([np.asarray(p, dtype=np.float64).ravel() for p in side]) for side in (before, after)
        )
        finite = np.isfinite(second).all(axis=1)
        first, second = first[finite], second[finite]
        drift = np.linalg.norm(second - first, axis=1)
        return (_absolute("drift", drift), _compared("diversity", _spread(first), _spread(second)))
    images = [cast("list[Image.Image]", side) for side in (before, after)]
    sizes = {picture.size for side in images for picture in side}
    one = next(iter(sizes)) if len(sizes) == 1 else (SIDE + 1, 0)
    small = one if max(one) <= SIDE else (SIDE, SIDE)
    grey = [np.stack([_pixels(p, small) for p in side]) for side in images]  # [N, S, S, 3]
    drift = np.sqrt(np.square(grey[1] - grey[0]).mean(axis=(1, 2, 3)))
    flat = [side.reshape(len(side), -1) for side in grey]
    return (
        _compared("saturation", *(np.array([_saturation(p) for p in side]) for side in images)),
        _compared("high frequencies", *(np.array([_high(p) for p in side]) for side in images)),
        _absolute("drift", drift),
        _compared("diversity", *(_spread(side) for side in flat)),
    )


def _measured(evaluation: Evaluation) -> tuple[Proxy, ...]:
    """Distances for which the networks or a judge's embedding had to be asked."""
    drift = evaluation.drift
    found = [one for one in drift.distances if one.kind != "picture"] if drift else []
    names = [f"{one.kind} drift" + (f" ({one.by})" if one.by else "") for one in found]
    return tuple(
        Proxy(name, 0.0, one.value, None, None, None, drift.prompts if drift else 0)
        for name, one in zip(names, found, strict=True)
    )


def _compared(name: str, base: Floats, policy: Floats) -> Proxy:
    mean = float(base.mean())
    found = mean_interval(policy - base, np.arange(len(base)))
    change, low, high = (None if v is None or mean <= 0 else v / mean for v in found)
    return Proxy(name, mean, float(policy.mean()), change, low, high, len(base))


def _absolute(name: str, values: Floats) -> Proxy:
    """The base is at no distance from itself, so there is no ratio: only how far."""
    return Proxy(name, 0.0, float(values.mean()), None, None, None, len(values))


def _spread(rows: Floats) -> Floats:
    """`[N]` distance of each row from another one, half the list away: prompts that are neighbours may be alike."""
    return np.asarray(np.linalg.norm(rows - np.roll(rows, len(rows) // 2 or 1, axis=0), axis=1))


def _pixels(picture: Image.Image, size: tuple[int, int]) -> Floats:
    """All of one size, so that pictures of different prompts can be compared."""
    small = picture.convert("RGB")
    if small.size != size:
        small = small.resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


def _saturation(picture: Image.Image) -> float:
    rgb = np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
    return float((rgb.max(axis=2) - rgb.min(axis=2)).mean())


def _high(picture: Image.Image) -> float:
    """Power above a quarter of the sampling rate, as a share of all power but the mean's."""
    grey = np.asarray(picture.convert("L"), dtype=np.float64)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    across, down = np.meshgrid(np.fft.fftfreq(grey.shape[1]), np.fft.fftfreq(grey.shape[0]))
    total = float(power.sum())
    return float(power[np.hypot(across, down) > 0.25].sum()) / total if total > 0 else 0.0


def _verdict(
    made: Judgement | None,
    others: Sequence[Judgement],
    gains: Mapping[str, float | None],
    gauges: Sequence[Proxy],
) -> str:
    parts = []
    if made is None:
        parts.append("No judge here made the training labels, so there is nothing to have been gamed.")
    elif made.comparison.verdict != "better":
        parts.append(f"`{made.name}`, which made the labels, did not rise: there is no gain to be doubted.")
    elif not others:
        parts.append(
            f"`{made.name}` rose and also made the labels, and nobody else was asked: it may have been gamed."
        )
    else:
        ups = [one.name for one in others if one.comparison.verdict == "better"]
        downs = [one.name for one in others if one.comparison.verdict == "worse"]
        if downs:
            little = all((gain := gains[name]) is not None and gain > -SMALL for name in downs)
            parts.append(
                f"`{made.name}`, which made the labels, rose{_sized(gains[made.name])} while "
                + " and ".join(f"`{name}` fell{_sized(gains[name])}" for name in downs)
                + (": a small price so far; watch it." if little else ": suspect it was gamed.")
            )
        elif ups:
            parts.append(
                f"`{made.name}`, which made the labels, rose, and so did {_named(ups)}: the gain carries over."
            )
        else:
            parts.append(
                f"`{made.name}`, which made the labels, rose; the other judges show no resolved change either way."
            )
    words = {"saturation": "colours", "high frequencies": "fine patterns", "diversity": "pictures"}
    for gauge in gauges:
        if gauge.moved and gauge.change is not None:
            way = f"{'+' if gauge.change > 0 else '-'}{100 * abs(gauge.change):.0f} %"
            hint = (
                "they have become alike" if gauge.name == "diversity" and gauge.change < 0 else "look at them"
            )
            parts.append(f"{gauge.name} {way}: {words[gauge.name]} changed, {hint}.")
    if gauges and not any(gauge.moved for gauge in gauges):
        counted = ", ".join(gauge.name for gauge in gauges if gauge.change is not None)
        parts.append(f"No alarm from {counted} on {gauges[0].pictures} pictures." if counted else "")
    return " ".join(part for part in parts if part)


def _sized(gain: float | None) -> str:
    return "" if gain is None else f" by {abs(gain):.2g} standard deviations"


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
