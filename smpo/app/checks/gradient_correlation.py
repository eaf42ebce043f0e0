"""`smpo measure rho`: whether several timesteps a walk would pay, on this model and these pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smpo.app.console import Console
from smpo.engine.gradient_correlation import GradientCorrelation, gain, gradient_correlation, gradients
from smpo.experiment import ExperimentSpec

__all__ = ["CHOICES", "Choice", "Measured", "measure_rho", "settings_for"]

CHOICES = (1, 2, 3, 4, 6, 8, 16)


@dataclass(frozen=True)
class Choice:
    """`train.timesteps_per_pair`: passes per loss (a backward counts as two), the cheaper loss' raw gain, and the gain
    at equal variance with its interval."""

    timesteps: int
    passes: float
    raw: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    resemblance: GradientCorrelation
    choices: list[Choice]

    @property
    def best(self) -> Choice:
        return max(self.choices, key=lambda choice: choice.gain)


def settings_for(pairs: int) -> list[str]:
    """What is changed in a spec to measure it: one update of so many pairs, one at a time."""
    return [
        "train.steps=1",
        "train.warmup=0",
        f"train.batch={pairs}",
        "train.timesteps_per_pair=1",
        "runtime.devices=1",
        "runtime.micro_batch=1",
    ]


def measure_rho(spec: ExperimentSpec, levels: int, console: Console) -> Measured:
    """`spec` as changed by `settings_for`. At the base, where training begins."""
    from smpo.app.build.build import build_run

    console.phase("loading")
    session = build_run(spec, report=None, progress=console.progress, say=console.warn).session
    console.phase("measuring")
    pairs = spec.train.batch
    found = gradient_correlation(
        gradients(session, levels), done=lambda count: console.progress("gradients of pairs", count, pairs)
    )
    return Measured(found, choices(spec, found, session.settings.t_max))


def choices(
    spec: ExperimentSpec, found: GradientCorrelation, t_max: int, among: Sequence[int] = CHOICES
) -> list[Choice]:
    """What each number of timesteps would cost and gain."""
    timesteps, objective = spec.model.facts().timesteps or 1000, spec.objective
    others = 3 + objective.needs_reference + objective.needs_means
    levels = objective.levels_per_pair()

    def passes(m: int) -> float:
        inversion = spec.inversion.expected_passes(timesteps, spec.train.t_min, t_max, levels * m)
        return 2 * levels * (inversion + others)

    one = passes(1)
    return [
        Choice(
            m,
            passes(m),
            one / passes(m),
            *(gain(rho, m, passes(m), one) for rho in (found.rho, found.high, found.low)),
        )
        for m in among
    ]
