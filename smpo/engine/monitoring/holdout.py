"""What the policy prefers among pairs that it has never trained on: the same pairs, timesteps and noise every time.

Noise is drawn and shared by a pair, whatever the method inverts, so that methods compare. What a look costs is
2 * pairs * timesteps passes of the policy; the base's errors are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smpo.engine.monitoring.metrics import bins
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.kinds import HELD_TIMESTEPS, Denoiser, PairBatch
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import exact

__all__ = ["Holdout"]

_SEED = 20_260
"""Of the noise; no part of a spec."""


@dataclass(frozen=True)
class Holdout:
    """Held-out pairs, ready to be shown. `share` `[M]`: how many people preferred the one called winner."""

    batches: Sequence[PairBatch]
    share: Tensor
    settings: StepConfig

    @property
    def timesteps(self) -> list[int]:
        """The middles of equal parts of the range."""
        return [(low + high) // 2 for low, high in bins(self.settings.t_min, self.settings.t_max, HELD_TIMESTEPS)]

    def errors(self, denoiser: Denoiser, *, reference: bool = False) -> Tensor:
        """`[2, T, M]` float64 on the CPU: element-mean squared errors of winner and loser.

        In double precision, so that differences of two looks keep what single precision would cancel (method 1.2).
        """
        rows = [
            torch.stack([_errors(denoiser, batch, t, reference) for t in self.timesteps], dim=1)
            for batch in self.batches
        ]
        return torch.cat(rows, dim=2)

    def metrics(self, errors: Tensor, base: Tensor) -> dict[str, float]:
        """`accuracy`: share of pairs whose preferred image (by p) the policy has come to denoise relatively better;
        `accuracy/votes`: the same against the votes; by timestep too. `margin` is minus the difference of the gaps,
        `gap/winner` and `gap/loser` are errors minus the base's. A tie counts as half.
        """
        side = self._side()
        winner, loser = errors - base  # [T, M]
        towards = (loser - winner) * side  # positive: the policy moved to the preferred side
        preferred, other = (torch.where(side > 0, *pair).mean() for pair in ((winner, loser), (loser, winner)))
        error = torch.where(side > 0, errors[0], errors[1]).mean()
        decided = self.share != 0.5
        votes = (loser - winner).mean(0)[decided] * (self.share[decided] - 0.5).sign()
        found = {
            "accuracy": _right(towards.mean(0)),
            "margin": float(towards.mean()),
            "error/winner": float(error),
            "gap/winner": float(preferred),
            "gap/loser": float(other),
        }
        if len(votes):
            found["accuracy/votes"] = _right(votes)
        for t, row in zip(self.timesteps, towards, strict=True):
            found[f"accuracy/t{t:03d}"] = _right(row)
            found[f"margin/t{t:03d}"] = float(row.mean())
        return found

    def margins(self, errors: Tensor, base: Tensor) -> Tensor:
        """`[M]`: each pair's own, averaged over timesteps; their mean is `margin`."""
        winner, loser = errors - base
        margins: Tensor = ((loser - winner) * self._side()).mean(0)
        return margins

    def _side(self) -> Tensor:
        """`[M]`: 1 where p prefers the winner, -1 where the loser, 0 where neither."""
        p = exact(torch.cat([batch.p for batch in self.batches])).cpu()
        return (p - 0.5).sign()


def _errors(denoiser: Denoiser, batch: PairBatch, t: int, reference: bool) -> Tensor:
    """`[2, B]`."""
    schedule, x0 = denoiser.schedule, batch.mean
    noise = PositionDraws(_SEED, batch.position, x0.device).normal(f"holdout/{t}", x0.shape[1:])
    both = torch.cat([noise, noise]).to(x0)
    times = torch.full((len(x0),), t, device=x0.device, dtype=torch.long)
    x_t = schedule.add_noise(x0, both, times)
    with torch.no_grad():
        output = denoiser.predict(x_t, times, batch.conditioning, reference=reference)
        epsilon = schedule.epsilon(output, x_t, times)
    error = (epsilon.cpu().double() - both.cpu().double()).square().flatten(1).mean(1)
    return error.reshape(2, len(batch))


def _right(margins: Tensor) -> float:
    return float((0.5 * (1 + margins.sign())).mean())
