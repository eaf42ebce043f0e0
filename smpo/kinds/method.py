"""Kinds that make the method: smoothing, inversion, objective, optimiser. Light: they are called directly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from smpo.kinds.values import Sampling
from smpo.registry.component import Component

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from smpo.kinds.live import Draws, Predictors
    from smpo.kinds.values import ObjectiveOut, Predicted, ScoreStats
    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["HELD_TIMESTEPS", "Inversion", "Objective", "Optimiser", "Smoothing"]

HELD_TIMESTEPS = 4
"""At how many timesteps held-out pairs are looked at."""
DRIFT_PROMPTS, DRIFT_TIMESTEPS = 64, 8
"""At how many prompts, at most, and timesteps an evaluation measures how far the policy has gone."""


class Smoothing(Component):
    """How sure are we that the labelled winner is the better image?

    The vote is one annotator's; a reward model may know how much annotators differ. Pure and cheap: called once, on
    scores that were computed before training.
    """

    kind: ClassVar[str] = "smoothing"
    needs_reward: ClassVar[bool] = True

    @property
    def needs_statistics(self) -> bool:
        """Whether p depends on `stats`. Then every pair of the table is scored before the first update; else
        those alone that are visited, and `stats` is NaN."""
        return self.needs_reward

    @property
    def is_hard(self) -> bool:
        """Whether p is always 0, 1, or 1/2 for a tie."""
        return False

    @abstractmethod
    def __call__(self, winner: Tensor, loser: Tensor, share: Tensor, stats: ScoreStats) -> Tensor:
        """`[M]` probability in [0, 1] that the winner wins.

        `winner`, `loser`: raw reward scores `[M]` (NaN when `needs_reward` is false); `share`: `[M]` share of votes.
        0.5 means no preference; below 0.5 the reward disagrees with the vote. Promises: monotone in
        `winner - loser`; swapping the pair gives one minus the result.
        """


class Inversion(Component):
    """How a clean latent becomes the noisy one on which policy and reference are compared."""

    kind: ClassVar[str] = "inversion"

    @property
    def needs_reference(self) -> bool:
        """Whether the inversion runs the frozen reference."""
        return False

    @property
    def needs_unconditional(self) -> bool:
        """Whether the inversion runs the networks with empty prompts too (guidance)."""
        return False

    @abstractmethod
    def __call__(self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws) -> Noised:
        """`Noised(x_t, noise)`, both `[2B, C, H, W]`, with `x_t = alpha(t) x0 + sigma(t) noise` exactly.

        `t` `[2B]` may differ per pair; a winner and its loser share theirs. It is on the CPU, so that a walk can be
        planned without waiting for the device; `schedule` and `predict` carry it over. Randomness comes only from
        `draws`.
        """

    def expected_passes(self, timesteps: int, t_min: int, t_max: int, levels: int = 1) -> float:
        """Mean network passes per image and timestep, over uniform t; `smpo plan` multiplies by it. No torch.

        With several `levels`, the timesteps of an image lie one in each of as many equal parts of the range.
        """
        return 0.0

    def max_steps(self) -> int:
        """Grid steps, for the check that the model's schedule is that long."""
        return 0


class Objective(Component):
    """Turns the predictions for a pair into one loss.

    Pure: no parameters, no state. What it needs beyond the predictions it declares, and the loader and the engine
    provide it without knowing its name: other samples (`sampling`), several timesteps a pair (`levels_per_pair`),
    averages over the whole update (`batch_means`), no reference (`needs_reference`).

    For preference objectives p = 0.5 at margin 0 gives zero gradient, and equal policy and reference give a known
    loss: `at_reference` (ln 2 for the logistic family), which the engine asserts at step 0.
    """

    kind: ClassVar[str] = "objective"
    needs_reference: ClassVar[bool] = True
    needs_means: ClassVar[bool] = False
    """Whether `batch_means` has something to say; it costs one more pass of the policy, without gradients."""
    label_use: ClassVar[Literal["size", "side"]] = "side"
    """Of p: how far it is from 1/2, or only which side of it."""

    @property
    def at_reference(self) -> float | None:
        """The loss of every pair while policy and reference are equal, if it is always the same."""
        return None

    def levels_per_pair(self) -> int:
        """Timesteps at which each pair is looked at in one loss."""
        return 1

    def sampling(self) -> Sampling:
        """What the loader should show."""
        return Sampling()

    @abstractmethod
    def __call__(self, predicted: Predicted, p: Tensor) -> ObjectiveOut: ...

    def batch_means(self, predicted: Predicted, p: Tensor) -> Mapping[str, Tensor]:
        """Values `[B]` whose means over all pairs of the update, on all devices, the loss depends on."""
        return {}

    def warnings(self, smoothing: Smoothing, inversion: Inversion) -> Iterable[str]:
        """What `smpo plan` should say about this company, a sentence each."""
        return ()


class Optimiser(Component):
    """Which rule turns gradients into steps. The learning rate and its schedule belong to `train`."""

    kind: ClassVar[str] = "optimiser"
    shardable: ClassVar[bool] = False
    """Whether a step of each number needs that number's state alone, so that a share can be stepped by itself."""

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer: ...
