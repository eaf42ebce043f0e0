"""The plane world in closed form: its data, the best policy, and the simulated annotators of its pairs.

Nothing here is learnt, so every number that a trained model produces can be compared with an exact one. The optimum

    p*(x | c) = p_ref(x | c) exp(r(x, c) / beta') / Z

is another Gaussian mixture, since the reward is linear along the ray and constant across it.

Each annotator has a taste, a utility over points that mixes the reward with a liking for tidiness (small
distance from the ray) or for one side of it. Given two points they choose by Bradley-Terry with ties (Rao and
Kupper, 1967):

    P(first)  = sigmoid((u_1 - u_2 - m) / T)
    P(second) = sigmoid((u_2 - u_1 - m) / T)
    P(tie)    = the rest

T = 0.15 is a person's imprecision in units of reward; m is the gap below which points look alike. Two points
of one mode differ by about one sd (0.12), so votes on them are noisy, while votes across modes (0.8 apart)
are nearly certain: the mixture of clear and doubtful pairs on which smoothed preferences can matter.

Shapes: `N` points, `P` pairs. All arrays are float64; nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from smpo.worlds.plane.world import CONDITIONS, Floats, Ints, directions, off_axis, radius

__all__ = [
    "ANNOTATORS", "DATA", "Optimum", "Radial", "Taste", "Votes", "collect_votes", "optimum", "sample_data", "side",
    "write_pairs",
]  # fmt: skip


def side(points: Floats, conditions: Ints) -> Floats:
    """`[N]` signed distance from the ray, positive counter-clockwise."""
    ahead = directions(conditions)
    across: Floats = ahead[:, 0] * points[:, 1] - ahead[:, 1] * points[:, 0]
    return across


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


@dataclass(frozen=True)
class Taste:
    """What one annotator looks at. `outward` multiplies the reward; the other terms disagree with it."""

    name: str
    outward: float = 1.0
    tidy: float = 0.0
    leaning: float = 0.0
    temperature: float = 0.15
    margin: float = 0.03

    def utility(self, points: Floats, conditions: Ints) -> Floats:
        """`[N]` how much this annotator likes each point."""
        liked: Floats = (
            self.outward * radius(points, conditions)
            - self.tidy * off_axis(points, conditions)
            + self.leaning * side(points, conditions)
        )
        return liked


ANNOTATORS: tuple[Taste, ...] = (
    Taste("plain"),
    Taste("keen", outward=1.3),
    Taste("tidy", tidy=0.5),
    Taste("leaning left", leaning=0.3),
    Taste("leaning right", leaning=-0.3),
    Taste("hasty", temperature=0.3, margin=0.09),
)


@dataclass(frozen=True)
class Votes:
    """How many people chose the first, the second, or neither of each pair; `[P]` each."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    neither: NDArray[np.uint8]


def collect_votes(first: Floats, second: Floats, conditions: Ints, rng: np.random.Generator, *, most: int = 3) -> Votes:
    """Votes of one to `most` different annotators on each pair. `first`, `second` `[P, 2]`; `conditions`
    `[P]`."""
    pairs, people = len(conditions), len(ANNOTATORS)
    order = rng.permuted(np.tile(np.arange(people), (pairs, 1)), axis=1)  # [P, people]
    asked = order < rng.integers(1, most + 1, size=pairs)[:, None]
    luck = rng.random((pairs, people))
    counts = np.zeros((3, pairs), dtype=np.uint8)
    for person, taste in enumerate(ANNOTATORS):
        gap = taste.utility(first, conditions) - taste.utility(second, conditions)
        for_first = 1 / (1 + np.exp((taste.margin - gap) / taste.temperature))
        for_second = 1 / (1 + np.exp((taste.margin + gap) / taste.temperature))
        choice = np.where(luck[:, person] < for_first, 0, 1)
        choice[luck[:, person] >= for_first + for_second] = 2
        for option in range(3):
            counts[option] += asked[:, person] & (choice == option)
    return Votes(*counts)


def write_pairs(path: Path, first: Floats, second: Floats, conditions: Ints, votes: Votes, **notes: object) -> None:
    """The file that `read_plane_pairs` reads. `first`, `second` `[P, 2]`; `conditions` `[P]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {
        "first": first.astype(np.float32),
        "second": second.astype(np.float32),
        "condition": conditions.astype(np.uint8),
        "votes": np.stack([votes.first, votes.second, votes.neither], axis=1),
    }
    save_file(tensors, path, metadata={"plane": json.dumps(notes)})
