"""Kinds of a sweep: the sampler that proposes settings, the pruner that gives up on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from smpo.registry.component import Component

__all__ = ["Pruner", "Sampler"]


class Sampler(Component):
    """Which settings a sweep tries next: a sampler of Optuna."""

    kind: ClassVar[str] = "sampler"
    several: ClassVar[bool] = True
    """Whether it can serve several objectives at once."""
    walks: ClassVar[bool] = False
    """Whether it visits a finite list of settings, and is done when it has."""

    @abstractmethod
    def build(self, seed: int, grid: Mapping[str, Sequence[Any]] | None) -> Any:
        """An `optuna.samplers.BaseSampler`.

        Called anew before each trial with a seed made of the study's and the number of trials before, so that a sweep
        which was interrupted goes on as it would have gone on. `grid` holds the values of every parameter where the
        space is a finite grid without branches, else None.
        """

    def check(self, grid: Mapping[str, Sequence[Any]] | None) -> str | None:
        """Why it can't search this space, in a sentence, or None."""
        return None


class Pruner(Component):
    """When a sweep gives up on a trial: a pruner of Optuna."""

    kind: ClassVar[str] = "pruner"
    paired: ClassVar[bool] = False
    """Whether it compares scores prompt by prompt, rather than one figure a rung."""

    @abstractmethod
    def build(self) -> Any:
        """An `optuna.pruners.BasePruner`. Steps are optimiser updates (prompts, where `paired`)."""
