"""Did pictures get better, or did the reward get fooled? An optimised reward's gain against everything else.

Proxies that no reward looks at are computed on pairs of pictures, policy and base at the same prompt and seed:

* saturation: mean of max(RGB) - min(RGB); preference tuning likes it garish;
* high-frequency energy: share of the power above a quarter of the sampling rate; grids of hacked rewards live there;
* drift: root mean square difference from the base's picture, or distance in the plane; and, where they were measured,
  the distances in features and in predicted noise (`smpo.evaluation.results.drift`);
* diversity: mean distance between a model's pictures of different prompts; a collapse makes them alike.

Each is reported as policy over base with an interval over prompts. The verdict counts what the intervals resolve, in
words; it looks at numbers only, so it ends with what to look at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smpo.evaluation.results.drift import SIDE, pixels
from smpo.evaluation.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from smpo.evaluation.results.evaluation import Evaluation, Judgement
    from smpo.kinds import Picture

__all__ = ["ALARM", "Proxy", "RewardHackingReport", "reward_hacking"]

Floats = NDArray[np.float64]
ALARM = 0.25
"""A proxy that has moved by more than this share, surely, is named in the verdict."""
SMALL = 0.1
"""Standard deviations of the base's scores: a judge that fell by less, though surely, is a price and no proof."""


@dataclass(frozen=True)
class Proxy:
    """A quantity that no reward measures: its means, and the relative change with its 95 % interval over prompts."""

    name: str
    base: float
    policy: float
    change: float | None
    low: float | None
    high: float | None
    pictures: int

    @property
    def moved(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > ALARM or self.high < -ALARM)


@dataclass(frozen=True)
class RewardHackingReport:
    """Proxies, the judges' gains side by side, and the verdict."""

    optimised: str | None
    """The judge that made the labels, if it is one of the judges."""
    gains: Mapping[str, float | None]
    """Gain by judge, in standard deviations of the base's scores, so that judges can be compared."""
    gap: float | None
    """Gain of the optimised judge minus the mean of the others', in the same unit."""
    proxies: tuple[Proxy, ...]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """As files of results have it, where proxies are `gauges`."""
        return {"gauges" if name == "proxies" else name: value for name, value in asdict(self).items()}

    def metrics(self) -> dict[str, float]:
        found = {f"goodhart/{proxy.name}": proxy.change for proxy in self.proxies if proxy.change is not None}
        if self.gap is not None:
            found["goodhart/gap"] = self.gap
        return {name: value for name, value in found.items() if math.isfinite(value)}


def reward_hacking(evaluation: Evaluation) -> RewardHackingReport:
    """The report of an evaluation, from its scores and the pictures that were kept."""
    gains = {judgement.name: _standardised(judgement) for judgement in evaluation.judgements}
    made = next((judgement for judgement in evaluation.judgements if judgement.made_labels), None)
    others = [judgement for judgement in evaluation.judgements if not judgement.made_labels]
    known = [gain for judge in others if (gain := gains[judge.name]) is not None]
    ours = gains[made.name] if made is not None else None
    gap = ours - float(np.mean(known)) if ours is not None and known else None
    proxies = _proxies(evaluation.kept_base, evaluation.kept_policy) + _measured(evaluation)
    verdict = " ".join([_about_judges(made, others, gains), *_about_proxies(proxies)])
    return RewardHackingReport(made.name if made else None, gains, gap, proxies, verdict)


def _standardised(judgement: Judgement) -> float | None:
    base = judgement.base.mean(axis=1)
    spread = float(np.nanstd(base)) if np.isfinite(base).any() else 0.0
    gain = judgement.comparison.gain
    return None if gain is None or spread == 0 else gain / spread


def _proxies(base: Mapping[int, Sequence[Picture]], policy: Mapping[int, Sequence[Picture]]) -> tuple[Proxy, ...]:
    """Over the first images of the prompts of which both kept a picture."""
    prompts = [number for number in base if number in policy]
    if len(prompts) < 2:
        return ()
    before, after = [base[n][0] for n in prompts], [policy[n][0] for n in prompts]
    if isinstance(before[0], np.ndarray):
        first, second = (np.stack([np.asarray(p, dtype=np.float64).ravel() for p in side]) for side in (before, after))
        finite = np.isfinite(second).all(axis=1)
        first, second = first[finite], second[finite]
        drift = np.linalg.norm(second - first, axis=1)
        return (_absolute("drift", drift), _compared("diversity", _spread(first), _spread(second)))
    images = [cast("list[Image.Image]", side) for side in (before, after)]
    sizes = {picture.size for side in images for picture in side}
    common = sizes.pop() if len(sizes) == 1 else (SIDE, SIDE)
    size = common if max(common) <= SIDE else (SIDE, SIDE)
    small = [np.stack([pixels(p, size) for p in side]) for side in images]  # [N, S, S, 3]
    return (
        _compared("saturation", *(np.array([_saturation(p) for p in side]) for side in images)),
        _compared("high frequencies", *(np.array([_high(p) for p in side]) for side in images)),
        _absolute("drift", np.sqrt(np.square(small[1] - small[0]).mean(axis=(1, 2, 3)))),
        _compared("diversity", *(_spread(side.reshape(len(side), -1)) for side in small)),
    )


def _measured(evaluation: Evaluation) -> tuple[Proxy, ...]:
    """Distances that need the networks or a judge's embedding."""
    drift = evaluation.drift
    if drift is None:
        return ()
    return tuple(
        Proxy(f"{one.kind} drift" + f" ({one.by})" * bool(one.by), 0.0, one.value, None, None, None, drift.prompts)
        for one in drift.distances
        if one.kind != "picture"
    )


def _compared(name: str, base: Floats, policy: Floats) -> Proxy:
    mean = float(base.mean())
    found = mean_interval(policy - base, np.arange(len(base)))
    change, low, high = (None if v is None or mean <= 0 else v / mean for v in found)
    return Proxy(name, mean, float(policy.mean()), change, low, high, len(base))


def _absolute(name: str, values: Floats) -> Proxy:
    """The base is at no distance from itself, so there is a distance and no ratio."""
    return Proxy(name, 0.0, float(values.mean()), None, None, None, len(values))


def _spread(rows: Floats) -> Floats:
    """`[N]` distance of each row from another one, half the list away: prompts that are neighbours may be alike."""
    return np.asarray(np.linalg.norm(rows - np.roll(rows, len(rows) // 2 or 1, axis=0), axis=1))


def _saturation(picture: Image.Image) -> float:
    rgb = pixels(picture, picture.size)
    return float((rgb.max(axis=2) - rgb.min(axis=2)).mean())


def _high(picture: Image.Image) -> float:
    """Power above a quarter of the sampling rate, as a share of all power but the mean's."""
    grey = np.asarray(picture.convert("L"), dtype=np.float64)
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    across, down = np.meshgrid(np.fft.fftfreq(grey.shape[1]), np.fft.fftfreq(grey.shape[0]))
    total = float(power.sum())
    return float(power[np.hypot(across, down) > 0.25].sum()) / total if total > 0 else 0.0


def _about_judges(made: Judgement | None, others: Sequence[Judgement], gains: Mapping[str, float | None]) -> str:
    if made is None:
        return "No judge here made the training labels, so there is nothing to have been gamed."
    if made.comparison.verdict != "better":
        return f"`{made.name}`, which made the labels, did not rise: there is no gain to be doubted."
    if not others:
        return f"`{made.name}` rose and also made the labels, and there is no other judge: it may have been gamed."
    ups = [judge.name for judge in others if judge.comparison.verdict == "better"]
    downs = [judge.name for judge in others if judge.comparison.verdict == "worse"]
    rose = f"`{made.name}`, which made the labels, rose"
    if downs:
        little = all((gain := gains[name]) is not None and gain > -SMALL for name in downs)
        fell = " and ".join(f"`{name}` fell{_sized(gains[name])}" for name in downs)
        end = ": a small price so far; watch it." if little else ": suspect it was gamed."
        return f"{rose}{_sized(gains[made.name])} while {fell}{end}"
    if ups:
        return f"{rose}, and so did {' and '.join(f'`{name}`' for name in ups)}: the gain carries over."
    return f"{rose}; the other judges show no resolved change either way."


def _about_proxies(proxies: Sequence[Proxy]) -> list[str]:
    words = {"saturation": "colours", "high frequencies": "fine patterns", "diversity": "pictures"}
    moved = [proxy for proxy in proxies if proxy.moved]
    counted = ", ".join(proxy.name for proxy in proxies if proxy.change is not None)
    if not moved:
        return [f"No alarm from {counted} on {proxies[0].pictures} pictures."] if counted else []
    parts = []
    for proxy in moved:
        change = proxy.change or 0.0
        hint = "they have become alike" if proxy.name == "diversity" and change < 0 else "look at them"
        parts.append(f"{proxy.name} {100 * change:+.0f} %: {words[proxy.name]} changed, {hint}.")
    return parts


def _sized(gain: float | None) -> str:
    return "" if gain is None else f" by {abs(gain):.2g} standard deviations"
