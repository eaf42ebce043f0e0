"""Samplers of a sweep: Optuna's, with the settings that matter."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from smpo.kinds import Sampler
from smpo.registry.component import register

__all__ = ["GaussianProcess", "Grid", "Nsga2", "Nsga3", "QuasiRandom", "RandomSearch", "Tpe"]

_Grid = Mapping[str, Sequence[Any]] | None


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
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import TPESampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(
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
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import GPSampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(n_startup_trials=self.startup, seed=seed, deterministic_objective=False)


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
        from optuna.samplers import GridSampler

        assert grid is not None, "refused before the first trial"
        return GridSampler(dict(grid), seed=0)  # a grid keeps its order when another process continues the study

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
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import QMCSampler, RandomSampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return QMCSampler(
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
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIIISampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIIISampler(population_size=self.population, seed=seed)
