"""What a run reports per update. Values stay on the device until the update is over."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from smpo.engine.monitoring.alerts import NonFiniteLoss, Suspect
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.engine.step import StepOutput
from smpo.kinds import PairBatch
from smpo.maths.schedule import carried

__all__ = ["Meter", "bins"]


class Meter:
    """Collects the outcomes of one update and averages them over pairs, micro-batches and processes.

    `implicit_accuracy` counts a pair as right when its margin points to the side that p prefers, a margin of exactly
    zero as half (the official code counts it as wrong), and leaves out pairs with p = 1/2.

    `margin/t...` is the margin towards the side that p prefers, over the pairs whose timestep lies in that quarter of
    the range; a quarter that no pair fell into isn't reported.

    `reference_passes`, with a cache of the reference (`recalled`): the share of images for which it ran.
    """

    def __init__(self, accelerator: Any, settings: StepConfig, *, recalled: bool = False) -> None:
        self._accelerator, self._recalled = accelerator, recalled
        self._bins = bins(settings.t_min, settings.t_max)
        self._ids: list[str] = []
        self._rows: dict[str, list[Tensor]] = {}
        self._passes: list[tuple[float, int]] = []
        self._asked = 0

    def add(self, batch: PairBatch, outcome: StepOutput) -> None:
        self._ids += batch.ids
        self._passes.append((outcome.passes, len(batch)))
        self._asked += len(batch) * outcome.reference_ran
        decided = (outcome.p - 0.5).sign()
        rows = {
            "loss": outcome.loss.detach(),
            "margin": outcome.margin,
            "tau_squared": outcome.target_power,
            "p": outcome.p,
            "t": outcome.t.float(),
            "_right": torch.where(decided == 0, 0.0, 0.5 * (1 + (outcome.margin * decided).sign())),
            "_decided": decided.abs(),
            **outcome.metrics,
        }
        for low, high in self._bins:
            inside = ((outcome.t >= low) & (outcome.t < high + 1)).float() * decided.abs()
            rows[f"_in {low}-{high}"] = inside
            rows[f"_margin {low}-{high}"] = torch.where(inside > 0, outcome.margin * decided, 0.0)
        for name, value in rows.items():
            self._rows.setdefault(name, []).append(value.float())

    @property
    def pairs(self) -> int:
        """How many were added here; a pair counts once for each of its losses."""
        return len(self._ids)

    def settle(self, step: int, norm: Tensor, *, scale: Tensor | None = None) -> dict[str, float]:
        """One number per metric, the same on every process, and the gradient's `norm` beside them.

        Raises `NonFiniteLoss`, before anything was applied. `scale`, of fp16: the factor of the losses (`loss_scale`);
        with it an infinite norm is returned, on every process where it is infinite on one. This is the only place in
        which an update waits for its device.
        """
        names = sorted(self._rows)
        values = [torch.cat(self._rows[name]) for name in names]
        norm = norm.detach().float()
        broken = (~values[names.index("loss")].isfinite()).sum()
        here = [*(value.sum() for value in values), broken.float(), (~norm.isfinite()).float()]
        host = torch.tensor([float(self.pairs), sum(p * n for p, n in self._passes), float(self._asked)])
        summed = self._accelerator.reduce(
            torch.cat([torch.stack(here), carried(host, here[0].device)]), reduction="sum"
        )
        scaled = norm.new_ones(()) if scale is None else scale.float()
        *total, broken_pairs, endless, pairs, inverted, asked, length, factor = torch.cat(
            [summed, torch.stack([norm, scaled])]
        ).tolist()
        if broken_pairs:
            raise NonFiniteLoss(step, f"the loss of {int(broken_pairs)} pairs is not finite", self.suspects())
        if endless and scale is None:
            raise NonFiniteLoss(step, "the gradient's norm is not finite", self.suspects())
        found = self._named(dict(zip(names, total, strict=True)), pairs, inverted)
        memory = {"reference_passes": asked / pairs} if self._recalled else {}
        scaling = {} if scale is None else {"loss_scale": factor}
        return {**found, **memory, **scaling, "grad_norm": math.inf if endless else length}

    def _named(self, found: dict[str, float], pairs: float, inverted: float) -> dict[str, float]:
        """Sums over pairs to what is reported; what a person looks at first comes first."""
        right, decided = found.pop("_right"), found.pop("_decided")
        by_t = {}
        for low, high in self._bins:
            seen, total_margin = found.pop(f"_in {low}-{high}"), found.pop(f"_margin {low}-{high}")
            if seen:
                by_t[f"margin/t{low:03d}-{high:03d}"] = total_margin / seen
        means = {name: value / pairs for name, value in found.items()}
        first = {name: means.pop(name) for name in ("loss", "margin")}
        accuracy = right / decided if decided else 0.5
        return {**first, "implicit_accuracy": accuracy, **means, "passes": inverted / pairs, **by_t}

    def suspects(self) -> list[Suspect]:
        """The pairs with a loss that is not a number, else those with the largest losses: of all processes, which have
        to call it together."""
        rows = {name: torch.cat(values).tolist() for name, values in self._rows.items()}
        shown = [name for name in rows if not name.startswith("_")]
        found = [Suspect(pair, {name: rows[name][i] for name in shown}) for i, pair in enumerate(self._ids)]
        found = _worst(found)
        if self._accelerator.num_processes > 1:
            found = _worst(gather_object(found))
        return found


def bins(t_min: int, t_max: int, count: int = 4) -> list[tuple[int, int]]:
    """The range of timesteps in (at most) four parts, both ends included."""
    span = t_max - t_min + 1
    cuts = [t_min + span * k // count for k in range(count + 1)]
    return [(low, high - 1) for low, high in pairwise(cuts) if low < high]


def _worst(suspects: list[Suspect]) -> list[Suspect]:
    order = sorted(suspects, key=lambda one: _badness(one.values["loss"]), reverse=True)
    return [one for one in order if _badness(one.values["loss"]) == float("inf")][:32] or order[:8]


def _badness(loss: float) -> float:
    return loss if loss == loss and loss != float("-inf") else float("inf")
