"""Is the policy better than its base, and how surely? Paired comparison on the same prompts and seeds.

One number a prompt goes in for each model (the mean over its images); the unit of everything here is the prompt.
Prompts of one cluster (`Prompt.group`: wordings of one scene, draws of one condition) are not independent; see
`intervals`.

All intervals are 95 % over prompts of *one training run*. They say nothing about another training seed.

Source: Holm 1979.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from smpo.errors import RunError
from smpo.evaluation.statistics.intervals import (
    Floats,
    cluster_codes,
    mean_interval,
    mean_p_value,
    prompts_needed,
    share_interval,
)

__all__ = ["Comparison", "compare", "holm"]


@dataclass(frozen=True)
class Comparison:
    """Policy and base by paired scores. None: these data don't determine the figure; `notes` give the reason."""

    prompts: int = 0
    """Prompts that were compared."""
    clusters: int = 0
    dropped: int = 0
    """Prompts without a finite score from both models; they are left out of everything else."""
    wins: int = 0
    ties: int = 0
    losses: int = 0
    mean_base: float | None = None
    mean_policy: float | None = None
    median_base: float | None = None
    median_policy: float | None = None
    gain: float | None = None
    """Mean over prompts of policy minus base."""
    gain_low: float | None = None
    gain_high: float | None = None
    win_rate: float | None = None
    """Share of prompts on which the policy scores higher; a tie is half a win."""
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    p_value: float | None = None
    """Two-sided, of "the mean gain is zero": below .05 exactly where the interval of the gain excludes zero."""
    design_effect: float = 1.0
    """How many times more prompts the win rate needs because prompts of a cluster agree; 1 without clusters."""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `unresolved`: where the interval of the win rate lies against one half."""
        if self.win_rate_low is not None and self.win_rate_low > 0.5:
            return "better"
        if self.win_rate_high is not None and self.win_rate_high < 0.5:
            return "worse"
        return "unresolved"

    def prompts_needed(self, effect: float = 0.02) -> int:
        """Prompts like these after which the win rate would be known to within `effect`."""
        share = 0.5 if self.win_rate is None else self.win_rate
        return prompts_needed(effect, win_rate=share, design_effect=self.design_effect)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "notes": list(self.notes), "verdict": self.verdict}


def compare(policy: ArrayLike, base: ArrayLike, groups: Sequence[Hashable] | None = None) -> Comparison:
    """Compare two models that were given the same prompts and seeds.

    `policy`, `base`: `[P]`, one score a prompt. `groups`: `[P]`, the cluster of each prompt; None makes every prompt
    its own. Prompts with a NaN or infinite score are dropped and counted, never averaged over in silence. No prompts,
    one prompt, one cluster, nothing but ties: all give a `Comparison`, with None for undetermined figures.
    """
    after: Floats = np.asarray(policy, dtype=np.float64)
    before: Floats = np.asarray(base, dtype=np.float64)
    named = list(range(after.size)) if groups is None else list(groups)
    if after.ndim != 1 or after.shape != before.shape or len(named) != after.size:
        raise RunError(
            f"can't pair scores of shapes {after.shape} and {before.shape} in {len(named)} groups",
            help="give one score a prompt and model, and one group a prompt",
        )
    finite = np.isfinite(after) & np.isfinite(before)
    dropped = int((~finite).sum())
    after, before = after[finite], before[finite]
    codes = cluster_codes([name for name, keep in zip(named, finite, strict=True) if keep])
    n, clusters = after.size, int(codes.max(initial=-1)) + 1
    notes = [f"{dropped} of {n + dropped} prompts have no finite score and are left out"] if dropped else []
    if n == 0:
        return Comparison(dropped=dropped, notes=(*notes, "no prompt could be compared"))

    gains = after - before
    ups, downs = int((gains > 0).sum()), int((gains < 0).sum())
    wins = np.where(gains > 0, 1.0, np.where(gains < 0, 0.0, 0.5))
    gain, gain_low, gain_high = mean_interval(gains, codes)
    rate, rate_low, rate_high, effect = share_interval(wins, codes, like=gains)
    if gain_low is None:
        few = "there is one prompt" if n == 1 else "all prompts are in one cluster"
        notes.append(f"{few}: an interval for the gain needs two")
    elif ups + downs == 0:
        notes.append("policy and base score the same on every prompt")
    elif gain_low == gain_high:
        notes.append("the gain is the same on every prompt, so its interval has no width")
    return Comparison(
        prompts=n, clusters=clusters, dropped=dropped,
        wins=ups, ties=n - ups - downs, losses=downs,
        mean_base=float(before.mean()), mean_policy=float(after.mean()),
        median_base=float(np.median(before)), median_policy=float(np.median(after)),
        gain=gain, gain_low=gain_low, gain_high=gain_high,
        win_rate=rate, win_rate_low=rate_low, win_rate_high=rate_high,
        p_value=mean_p_value(gains, codes), design_effect=effect, notes=tuple(notes),
    )  # fmt: skip


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the given order: compare them with the level for the whole family.

        p_(k) -> max_{j <= k} min(1, (m - j + 1) p_(j))

    None (nothing could be tested) stays None and doesn't count towards m.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted
