"""Samplers and pruners of a sweep: Optuna's, with the settings that matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from smpo.kinds import Pruner, Sampler
from smpo.registry.component import register

__all__ = [
    "GaussianProcess",
    "Grid",
    "Halving",
    "Hyperband",
    "Median",
    "Nsga2",
    "Nsga3",
    "Percentile",
    "QuasiRandom",
    "RandomSearch",
    "Tpe",
    "Wilcoxon",
]

_Grid = Mapping[str, Sequence[Any]] | None


def _experimental(part: Callable[..., Any], **settings: Any) -> Any:
    """A part of Optuna, without the warning that it is experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return part(**settings)


@register
class Tpe(Sampler):
    """Tree-structured Parzen estimator, all parameters together, each branch as a group; copes with parallel trials.

    Settings that are being tried count as bad for the moment (constant liar), so that workers don't crowd together.
    Bergstra et al. 2011.
    """

    use: Literal["tpe"] = "tpe"
    version: ClassVar[int] = 1

    startup: int = Field(10, ge=1)
    """Random trials before the estimator's."""
    candidates: int = Field(24, ge=1)
    """Proposals among which the most promising is taken."""

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import TPESampler

        return _experimental(
            TPESampler,
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


@register
class GaussianProcess(Sampler):
    """Bayesian optimisation with a Gaussian process, for few dimensions and costly trials.

    Settings that exist on one branch only are drawn at random.
    """

    use: Literal["gp"] = "gp"
    version: ClassVar[int] = 1

    startup: int = Field(10, ge=1)
    """Random trials before the process is fitted."""

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import GPSampler

        return _experimental(GPSampler, n_startup_trials=self.startup, seed=seed, deterministic_objective=False)


@register
class RandomSearch(Sampler):
    """Independent uniform draws. Hard to beat for its price, and the yardstick for the others."""

    use: Literal["random"] = "random"
    version: ClassVar[int] = 1

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


@register
class Grid(Sampler):
    """Every combination once, in a shuffled order. Takes `choice` and `int` entries only, without branches."""

    use: Literal["grid"] = "grid"
    version: ClassVar[int] = 1
    walks: ClassVar[bool] = True

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)  # every trial is enqueued with its point (`smpo.sweep.grid`)

    def check(self, grid: _Grid) -> str | None:
        if grid is None:
            return "a grid needs `choice` and `int` entries, and no branch with a search of its own"
        return None


@register
class QuasiRandom(Sampler):
    """A scrambled low-discrepancy sequence: fills the space more evenly than random draws."""

    use: Literal["qmc"] = "qmc"
    version: ClassVar[int] = 1

    sequence: Literal["sobol", "halton"] = "sobol"
    """Which low-discrepancy sequence."""
    seed: int = Field(0, ge=0)
    """Of the scrambling, which all workers share."""

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import QMCSampler, RandomSampler

        return _experimental(
            QMCSampler,
            qmc_type=self.sequence,
            scramble=True,
            seed=self.seed,
            independent_sampler=RandomSampler(seed=seed),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )


@register
class Nsga2(Sampler):
    """Evolution towards a Pareto front of two or three objectives. Deb et al. 2002."""

    use: Literal["nsga2"] = "nsga2"
    version: ClassVar[int] = 1

    population: int = Field(20, ge=2)
    """Trials of a generation."""

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)


@register
class Nsga3(Sampler):
    """Evolution towards a Pareto front of many objectives, spread by reference points. Deb & Jain 2014."""

    use: Literal["nsga3"] = "nsga3"
    version: ClassVar[int] = 1

    population: int = Field(20, ge=2)
    """Trials of a generation."""

    def build(self, seed: int, grid: _Grid) -> Any:
        from optuna.samplers import NSGAIIISampler

        return _experimental(NSGAIIISampler, population_size=self.population, seed=seed)


@register
class Median(Pruner):
    """Give up on a trial whose best report so far is worse than the median of the others at the same update."""

    use: Literal["median"] = "median"
    version: ClassVar[int] = 1

    startup: int = Field(5, ge=1)
    """Finished trials before anything is given up."""
    after: int = Field(0, ge=0)
    """Updates during which nothing is given up."""

    def build(self) -> Any:
        from optuna.pruners import MedianPruner

        return MedianPruner(n_startup_trials=self.startup, n_warmup_steps=self.after)


@register
class Percentile(Pruner):
    """Keep the best share of trials at each update; `median` is half."""

    use: Literal["percentile"] = "percentile"
    version: ClassVar[int] = 1

    keep: float = Field(50.0, gt=0, lt=100)
    """Per cent of the trials that go on."""
    startup: int = Field(5, ge=1)
    """Finished trials before anything is given up."""
    after: int = Field(0, ge=0)
    """Updates during which nothing is given up."""

    def build(self) -> Any:
        from optuna.pruners import PercentilePruner

        return PercentilePruner(self.keep, n_startup_trials=self.startup, n_warmup_steps=self.after)


@register
class Halving(Pruner):
    """Asynchronous successive halving (ASHA): at each rung the best 1/`factor` are promoted. Li et al. 2020."""

    use: Literal["asha"] = "asha"
    version: ClassVar[int] = 1

    first: int = Field(1, ge=1)
    """Updates before the first rung."""
    factor: int = Field(3, ge=2)
    """Of so many trials at a rung one goes on; rungs are as many times further apart."""

    def build(self) -> Any:
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(min_resource=self.first, reduction_factor=self.factor)


@register
class Hyperband(Pruner):
    """Several successive halvings with different first rungs, for when early reports may mislead. Li et al. 2018."""

    use: Literal["hyperband"] = "hyperband"
    version: ClassVar[int] = 1

    first: int = Field(1, ge=1)
    """Updates before the first rung of the most impatient bracket."""
    last: int = Field(ge=1)
    """Updates of a whole trial."""
    factor: int = Field(3, ge=2)
    """Of so many trials at a rung one goes on."""

    def build(self) -> Any:
        from optuna.pruners import HyperbandPruner

        return HyperbandPruner(min_resource=self.first, max_resource=self.last, reduction_factor=self.factor)


@register
class Wilcoxon(Pruner):
    """Give up when scores on the same prompts are significantly worse than those of the best trial. Needs `rungs`.

    A signed-rank test over prompts, so it needs far fewer of them than a comparison of means.
    """

    use: Literal["wilcoxon"] = "wilcoxon"
    version: ClassVar[int] = 1
    paired: ClassVar[bool] = True

    p: float = Field(0.05, gt=0, lt=1)
    """Largest p-value at which a trial is given up."""
    startup: int = Field(16, ge=2)
    """Prompts that must have been compared."""

    def build(self) -> Any:
        from optuna.pruners import WilcoxonPruner

        return _experimental(WilcoxonPruner, p_threshold=self.p, n_startup_steps=self.startup)
