"""How the plane world's base and pairs are made: `python -m tools.make_plane`, a minute on one thread.

First the denoiser is trained on points of the world; then two of its own samples (CFG 1, 50 DDIM steps) for
each of 4,000 prompts are shown to simulated annotators. Base and pairs are a function of the seed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from smpo.worlds.plane.network import (
    NULL,
    PlaneNet,
    Shape,
    sample_points,
    schedule,
    start_noise,
    write_network,
)
from smpo.worlds.plane.world import CONDITIONS, Floats, Ints, off_axis, radius
from tools.plane_world import DATA, Votes, collect_votes, sample_data, write_pairs

__all__ = ["base_accuracy", "draw_pairs", "pretrain"]

_log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).resolve().parents[1] / "smpo" / "worlds" / "plane" / "weights"
"""Where the shipped files lie in a checkout."""
BATCH = 512
LEARNING_RATE = 3e-3
UNPROMPTED = 0.1
"""Share of the training points shown without their condition."""


def pretrain(steps: int, seed: int) -> PlaneNet:
    """The base: eps-prediction at uniform timesteps, AdamW, learning rate along a cosine to zero."""
    rng = np.random.default_rng(seed)
    levels = schedule()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PlaneNet(Shape())
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        points, conditions = sample_data(BATCH, rng)
        shown = torch.as_tensor(np.where(rng.random(BATCH) < UNPROMPTED, NULL, conditions))
        t = torch.as_tensor(rng.integers(levels.T, size=BATCH))
        eps = _latents(rng.standard_normal((BATCH, 2)))
        loss = (network(levels.add_noise(_latents(points), eps, t), t, shown) - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        if step % 1000 == 999:
            _log.info("step %d: loss %.4f", step + 1, loss.item())
    return network


def draw_pairs(network: PlaneNet, count: int, seed: int) -> tuple[Floats, Floats, Ints, Votes]:
    """Two base samples `[count, 2]` for each of `count` conditions, and the votes on them."""
    conditions = np.arange(count) % len(CONDITIONS)
    # Beyond 64 bits, where no evaluation's seeds are: no evaluation uses starts of the training.
    seeds = [(1 << 64) + (seed << 32) + index for index in range(2 * count)]
    points = sample_points(
        network,
        start_noise(seeds),
        torch.as_tensor(np.tile(conditions, 2)),
        schedule(),
        guidance=1.0,
        steps=50,
    )
    # Annotators see what is stored, float32.
    first, second = np.split(points.reshape(-1, 2).numpy().astype(np.float64), 2)
    return (
        first,
        second,
        conditions,
        collect_votes(first, second, conditions, np.random.default_rng([seed, 1])),
    )


def base_accuracy(network: PlaneNet, count: int = 20_000) -> dict[str, float]:
    """How close the base is to what can be known: its noise predictions to exact ones, its samples to the
    data."""
    rng = np.random.default_rng(99)
    levels = schedule()
    points, conditions = sample_data(count, rng)
    t = rng.integers(levels.T, size=count)
    bar = levels.alphas_cumprod.numpy()[t]
    noisy = np.sqrt(bar)[:, None] * points + np.sqrt(1 - bar)[:, None] * rng.standard_normal((count, 2))
    with torch.no_grad():
        said = network(_latents(noisy), torch.as_tensor(t), torch.as_tensor(conditions)).reshape(-1, 2).numpy()
    truth = DATA.noise(noisy, bar, conditions)

    asked = np.arange(count // 5) % len(CONDITIONS)
    drawn = sample_points(
        network,
        start_noise(range(len(asked))),
        torch.as_tensor(asked),
        levels,
        guidance=1.0,
        steps=50,
    )
    samples = drawn.reshape(-1, 2).numpy().astype(np.float64)
    along = radius(samples, asked)
    inner = along < sum(DATA.means) / 2
    return {
        "mean squared error of the noise prediction against the exact one": float(np.mean((said - truth) ** 2)),
        "mean square of the exact one": float(np.mean(truth**2)),
        "mean radius of samples (data: 1.0)": float(along.mean()),
        "share of samples in the inner mode (data: 0.5)": float(inner.mean()),
        "mean radius of the inner mode (data: 0.6)": float(along[inner].mean()),
        "mean radius of the outer mode (data: 1.4)": float(along[~inner].mean()),
        "mean distance from the ray (data: 0.096)": float(off_axis(samples, asked).mean()),
    }


def pair_facts(first: Floats, second: Floats, conditions: Ints, votes: Votes) -> dict[str, float]:
    """How many pairs there are, and how often people and reward disagree."""
    tied = votes.first == votes.second
    agree = (votes.first > votes.second) == (radius(first, conditions) > radius(second, conditions))
    return {
        "pairs": len(conditions),
        "votes": int(votes.first.sum() + votes.second.sum() + votes.neither.sum()),
        "share of tied pairs": float(tied.mean()),
        "share of untied pairs whose winner has the smaller radius": float(1 - agree[~tied].mean()),
    }


def _latents(points: Floats) -> torch.Tensor:
    """`[N, 2] -> [N, 2, 1, 1]`, float32."""
    return torch.as_tensor(points, dtype=torch.float32).reshape(-1, 2, 1, 1)


def _read_me(how: str, sections: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "# The plane world's base and pairs\n\n"
    yield f"Made by `{how}`, which also wrote this file.\n"
    for title, numbers in sections.items():
        yield f"\n## {title}\n\n| what | value |\n|---|---|\n"
        for what, value in numbers.items():
            yield f"| {what} | {value if isinstance(value, int) else format(value, '.4g')} |\n"


def main() -> None:
    """Write `base.safetensors`, `pairs.safetensors` and `README.md`."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_plane", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000, help="training steps of the base")
    parser.add_argument("--pairs", type=int, default=4000)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)

    network = pretrain(given.steps, given.seed)
    write_network(network, given.out / "base.safetensors", steps=given.steps, seed=given.seed)
    first, second, conditions, votes = draw_pairs(network, given.pairs, given.seed)
    write_pairs(given.out / "pairs.safetensors", first, second, conditions, votes, seed=given.seed)

    how = f"python -m tools.make_plane --seed {given.seed} --steps {given.steps} --pairs {given.pairs}"
    numbers = {"Base": base_accuracy(network), "Pairs": pair_facts(first, second, conditions, votes)}
    (given.out / "README.md").write_text("".join(_read_me(how, numbers)))
    for file in given.out.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone; an installed package is read by others
    _log.info("written to %s", given.out)


if __name__ == "__main__":
    main()
