"""The plane world in closed form: what its data are, what is good, and where the best model would be.

A prompt is one of eight compass directions. Its "pictures" are points: an equal mixture of two round
Gaussians on the ray of that direction, at radius 0.6 and 1.4, each with sd 0.12. The reward is the radial
coordinate. Nothing here is learnt, so every number that a trained model produces can be held against an exact
one, the optimum included:

    p*(x | c) = p_ref(x | c) exp(r(x, c) / beta') / Z

The reward is linear along the ray and constant across it, so tilting a Gaussian mixture by it gives another.

Shapes: `N` points. All arrays are float64; nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smpo.errors import SmpoError

__all__ = [
    "CONDITIONS",
    "DATA",
    "Optimum",
    "Radial",
    "condition_of",
    "directions",
    "off_axis",
    "optimum",
    "radius",
    "sample_data",
    "side",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONDITIONS: tuple[str, ...] = (
    "east",
    "north-east",
    "north",
    "north-west",
    "west",
    "south-west",
    "south",
    "south-east",
)
"""The prompts, counter-clockwise from the positive x axis."""


def condition_of(prompts: Sequence[str]) -> Ints:
    """`[N]` index of each prompt among `CONDITIONS`. The empty prompt has no direction and is refused
    here."""
    known = {word: index for index, word in enumerate(CONDITIONS)}
    unknown = [prompt for prompt in prompts if prompt not in known]
    if unknown:
        raise SmpoError(
            f"the plane world has no direction {unknown[0]!r}",
            help=f"its prompts are {', '.join(CONDITIONS)}",
        )
    return np.array([known[prompt] for prompt in prompts], dtype=np.int64)


def directions(conditions: Ints) -> Floats:
    """`[N, 2]` unit vectors along which the conditions' points lie."""
    assert (conditions < len(CONDITIONS)).all(), "the null class has no direction"
    angle = 2 * math.pi * conditions / len(CONDITIONS)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def radius(points: Floats, conditions: Ints) -> Floats:
    """The reward, `[N]`: how far out a point lies along its condition's direction."""
    along: Floats = (points * directions(conditions)).sum(axis=1)
    return along


def side(points: Floats, conditions: Ints) -> Floats:
    """`[N]` signed distance from the ray, positive counter-clockwise."""
    ahead = directions(conditions)
    across: Floats = ahead[:, 0] * points[:, 1] - ahead[:, 1] * points[:, 0]
    return across


def off_axis(points: Floats, conditions: Ints) -> Floats:
    """`[N]` distance from the ray: what a fine-tuning that only pushes outwards leaves alone, or damages."""
    return np.abs(side(points, conditions))


@dataclass(frozen=True)
class Radial:
    """A mixture of Gaussians along the ray, with the same sd across it: the data, the base, and every
    optimum."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sd: float

    def mean(self) -> float:
        """Expected reward."""
        return math.fsum(weight * mean for weight, mean in zip(self.weights, self.means, strict=True))

    def log_density(self, radii: Floats, sides: Floats) -> Floats:
        """`[N]` log-density of points with these coordinates along and across the ray."""
        scaled = (radii[:, None] - np.array(self.means)) / self.sd  # [N, modes]
        modes = np.log(self.weights) - scaled**2 / 2
        across = -((sides / self.sd) ** 2) / 2
        return np.asarray(np.logaddexp.reduce(modes, axis=1) + across - math.log(2 * math.pi * self.sd**2))

    def sample(self, conditions: Ints, rng: np.random.Generator) -> Floats:
        """`[N, 2]` points, one a condition."""
        mode = rng.choice(len(self.means), size=len(conditions), p=self.weights)
        along = np.array(self.means)[mode] + self.sd * rng.standard_normal(len(conditions))
        across = self.sd * rng.standard_normal(len(conditions))
        ahead = directions(conditions)
        left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
        points: Floats = along[:, None] * ahead + across[:, None] * left
        return points

    def noise(self, x_t: Floats, alpha_bar: Floats, conditions: Ints) -> Floats:
        """`[N, 2]` what a perfect denoiser answers: E[eps | x_t] = -sqrt(1 - abar) grad log p_t(x_t).

        Every mode stays a round Gaussian under noise: centre sqrt(abar) m, variance abar sd^2 + 1 - abar.
        """
        ahead = directions(conditions)[:, None, :]
        centres = np.sqrt(alpha_bar)[:, None, None] * np.array(self.means)[None, :, None] * ahead  # [N, modes, 2]
        variance = (alpha_bar * self.sd**2 + 1 - alpha_bar)[:, None]
        away = x_t[:, None, :] - centres
        logits = np.log(self.weights) - (away**2).sum(axis=2) / (2 * variance)
        share = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))  # [N, modes]
        answer: Floats = np.sqrt(1 - alpha_bar)[:, None] * (share[:, :, None] * away).sum(axis=1) / variance
        return answer


DATA = Radial(weights=(0.5, 0.5), means=(0.6, 1.4), sd=0.12)
"""What the base is trained on, the same for every condition."""


def sample_data(count: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """`[count, 2]` points of uniformly drawn conditions, and those conditions `[count]`."""
    conditions = rng.integers(len(CONDITIONS), size=count)
    return DATA.sample(conditions, rng), conditions


@dataclass(frozen=True)
class Optimum:
    """The best trade of reward against divergence at one price, and what it costs."""

    policy: Radial
    gain: float
    """Expected reward above the reference's."""
    kl: float
    """Kullback-Leibler divergence of the optimum from the reference, in nats."""


def optimum(price: float, reference: Radial = DATA) -> Optimum:
    """`p_ref exp(r / price)`, normalised: the policy that maximises E[r] - price * KL(p || p_ref).

    A Gaussian N(m, s^2) tilted by exp(r / b) is N(m + s^2 / b, s^2) with mass exp(m / b + s^2 / 2 b^2), and
    KL = E_p*[r] / b - log Z. `price` must be positive; as it grows the optimum returns to the reference.
    """
    shift = reference.sd**2 / price
    logits = np.log(reference.weights) + np.array(reference.means) / price + shift / (2 * price)
    log_z = float(np.logaddexp.reduce(logits))
    policy = Radial(
        weights=tuple(float(weight) for weight in np.exp(logits - log_z)),
        means=tuple(mean + shift for mean in reference.means),
        sd=reference.sd,
    )
    return Optimum(policy, gain=policy.mean() - reference.mean(), kl=policy.mean() / price - log_z)
