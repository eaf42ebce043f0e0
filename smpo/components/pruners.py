"""Pruners of a sweep: when a trial is so far behind that finishing it would be waste."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

from pydantic import Field

from smpo.kinds import Pruner
from smpo.registry.component import register

__all__ = ["Halving", "Hyperband", "Median", "Percentile", "Wilcoxon"]


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
        from optuna.exceptions import ExperimentalWarning
        from optuna.pruners import WilcoxonPruner

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return WilcoxonPruner(p_threshold=self.p, n_startup_steps=self.startup)
