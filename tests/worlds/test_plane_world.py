"""The plane world in closed form: geometry, densities, optima and annotators."""

from __future__ import annotations

import numpy as np
import pytest

from smpo.errors import SmpoError
from smpo.worlds.plane.world import CONDITIONS, condition_of, directions, off_axis, radius
from tools.plane_world import ANNOTATORS, DATA, collect_votes, optimum, sample_data, side


def test_words_point_where_a_compass_does() -> None:
    east, north, south_west = directions(condition_of(["east", "north", "south-west"]))
    assert np.allclose(east, [1, 0])
    assert np.allclose(north, [0, 1])
    assert np.allclose(south_west, [-(0.5**0.5), -(0.5**0.5)])


@pytest.mark.parametrize("prompt", ["up", "", "North"])
def test_other_words_are_refused_with_the_list_of_those_that_work(prompt: str) -> None:
    with pytest.raises(SmpoError) as told:
        condition_of(["east", prompt])
    assert repr(prompt) in str(told.value) and told.value.help is not None and "north-east" in told.value.help


def test_radius_and_side_are_coordinates() -> None:
    rng = np.random.default_rng(0)
    points, conditions = rng.standard_normal((50, 2)), rng.integers(8, size=50)
    along, across = radius(points, conditions), side(points, conditions)
    assert np.allclose(along**2 + across**2, (points**2).sum(axis=1))
    assert np.allclose(off_axis(points, conditions), np.abs(across))


def test_data_have_two_modes_a_condition() -> None:
    points, conditions = sample_data(20_000, np.random.default_rng(0))
    along = radius(points, conditions)
    inner = along < 1
    assert inner.mean() == pytest.approx(0.5, abs=0.02)
    assert along[inner].mean() == pytest.approx(0.6, abs=0.01)
    assert along[~inner].mean() == pytest.approx(1.4, abs=0.01)
    assert side(points, conditions).std() == pytest.approx(0.12, abs=0.005)
    assert np.bincount(conditions).min() > 20_000 / 8 * 0.9


def test_the_density_integrates_to_one() -> None:
    grid = np.linspace(-1, 3, 201)
    along, across = (axis.ravel() for axis in np.meshgrid(grid, grid))
    assert np.exp(DATA.log_density(along, across)).sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("price", [0.05, 0.3, 2.0])
def test_the_optimum_is_the_tilted_density(price: float) -> None:
    """Against the definition: log p* - log p_ref - r / price is the same everywhere."""
    best = optimum(price)
    grid = np.linspace(-1, 5, 4001)
    log_best, log_ref = (which.log_density(grid, 0 * grid) for which in (best.policy, DATA))
    constant = log_best - log_ref - grid / price
    assert np.ptp(constant) < 1e-8
    kl = best.policy.mean() / price + constant[0]
    assert best.kl == pytest.approx(kl)
    assert best.gain == pytest.approx(best.policy.mean() - 1)


def test_a_lower_price_buys_reward_with_divergence() -> None:
    fronts = [optimum(price) for price in (100.0, 1.0, 0.3, 0.1)]
    gains, costs = [best.gain for best in fronts], [best.kl for best in fronts]
    assert gains == sorted(gains) and costs == sorted(costs)
    assert gains[0] == pytest.approx(0, abs=0.01) and costs[0] == pytest.approx(0, abs=1e-4)


def test_the_exact_denoiser_is_the_score() -> None:
    """-sqrt(1 - abar) grad log p_t, by finite differences of a mixture that is written out again."""
    rng = np.random.default_rng(1)
    x, condition, bar = (
        rng.standard_normal((5, 2)),
        rng.integers(8, size=5),
        np.array([0.99, 0.7, 0.3, 0.05, 0.9]),
    )

    def log_p(x: np.ndarray) -> np.ndarray:
        variance = bar * DATA.sd**2 + 1 - bar
        terms = []
        for mean in DATA.means:
            away = x - np.sqrt(bar)[:, None] * mean * directions(condition)
            terms.append(np.log(0.5) - (away**2).sum(axis=1) / (2 * variance))
        return np.logaddexp(*terms)

    gradient = np.stack(
        [(log_p(x + h) - log_p(x - h)) / 2e-5 for h in (np.array([1e-5, 0.0]), np.array([0.0, 1e-5]))], axis=1
    )
    assert np.allclose(DATA.noise(x, bar, condition), -np.sqrt(1 - bar)[:, None] * gradient, atol=1e-6)


def test_annotators_agree_on_clear_pairs_and_not_on_doubtful_ones() -> None:
    count = 4000
    conditions = np.zeros(count, dtype=np.int64)
    far, near = np.tile([1.4, 0.0], (count, 1)), np.tile([0.6, 0.0], (count, 1))
    clear = collect_votes(far, near, conditions, np.random.default_rng(0))
    even = collect_votes(far, far, conditions, np.random.default_rng(0))
    assert clear.first.sum() / (clear.first + clear.second + clear.neither).sum() > 0.95
    assert even.first.sum() / (even.first + even.second).sum() == pytest.approx(0.5, abs=0.02)
    assert 0.05 < even.neither.sum() / (even.first + even.second + even.neither).sum() < 0.3


def test_one_to_three_people_are_asked_about_a_pair() -> None:
    points = np.zeros((500, 2))
    votes = collect_votes(points, points, np.zeros(500, dtype=np.int64), np.random.default_rng(0))
    asked = votes.first.astype(int) + votes.second + votes.neither
    assert set(asked) == {1, 2, 3}


def test_tastes_differ() -> None:
    """A tidier point and one further out: the tidy annotator weighs them differently from the plain one."""
    tidy, out = np.array([[1.0, 0.0]]), np.array([[1.05, 0.2]])
    east = np.zeros(1, dtype=np.int64)
    liked = {taste.name: float(taste.utility(out, east)[0] - taste.utility(tidy, east)[0]) for taste in ANNOTATORS}
    assert liked["plain"] > 0 > liked["tidy"]
    assert liked["leaning left"] > liked["leaning right"]
    assert len(CONDITIONS) == 8
