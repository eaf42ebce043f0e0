"""Laws that every component of a kind obeys, and golden values through the components themselves."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.components.inversions import NoInversion
from smpo.components.optimisers import Adafactor, AdamW
from smpo.components.smoothings import Hard, Label, Likelihood, Margin, PseudoLabels, Votes
from smpo.errors import RunError
from smpo.kinds import Predictors, ScoreStats
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule

GOLDEN = json.loads((Path(__file__).parents[1] / "maths" / "golden.json").read_text())
STATS = ScoreStats(low=-2.0, high=3.0, count=100, mean=0.4, std=0.8)
SMOOTHINGS = [
    Hard(),
    Label(epsilon=0.2),
    Votes(),
    Likelihood(),
    Likelihood(temperature=0.2),
    Margin(),
    Margin(standardise=False, temperature=0.3),
    PseudoLabels(),
]
floats = st.floats(-2, 3)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=repr)
@given(w=floats, loser=floats, share=st.sampled_from([0.0, 0.25, 0.5, 2 / 3, 1.0]))
def test_smoothing_is_a_probability_and_swapping_the_pair_gives_one_minus_it(smoothing, w, loser, share):
    p = smoothing(double(w), double(loser), double(share), STATS)
    q = smoothing(double(loser), double(w), double(1 - share), STATS)
    assert 0 <= p <= 1
    assert float(p + q) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=repr)
@given(w=floats, loser=floats, share=st.sampled_from([0.0, 0.5, 2 / 3, 1.0]))
def test_certain_smoothings_never_doubt_but_in_ties(smoothing, w, loser, share):
    if smoothing.is_hard:
        assert float(smoothing(double(w), double(loser), double(share), STATS)) in (0, 0.5, 1)


@pytest.mark.parametrize("smoothing", [Likelihood(), Margin(), PseudoLabels()], ids=repr)
@given(w=floats, other=floats, loser=floats)
def test_a_better_winner_wins_more_surely(smoothing, w, other, loser):
    p, q = (smoothing(double(x), double(loser), double(1.0), STATS) for x in (w, other))
    assert (p >= q) if w >= other else (p <= q)


def test_likelihood_meets_the_golden_labels():
    golden = GOLDEN["B_labels"]
    scores = torch.tensor(golden["raw_scores_image0_image1"], dtype=torch.float64)
    smoothing = Likelihood(low=golden["r_min"], high=golden["r_max"])
    p = smoothing(scores[:, 0], scores[:, 1], torch.ones(5), STATS)
    assert p.tolist() == pytest.approx(golden["p_image0"], abs=1e-10)
    clamped = smoothing.model_copy(update={"clamp": True})(scores[:, 0], scores[:, 1], torch.ones(5), STATS)
    assert clamped.tolist() == pytest.approx(golden["clamped_to_[0,1]"]["p_image0"], abs=1e-10)


def test_likelihood_uses_the_stored_range_unless_told():
    one = Likelihood()(double(1.0), double(0.0), double(1.0), STATS)
    assert float(one) == pytest.approx(1 / (1 + math.exp(-1 / 5)), abs=1e-12)
    assert float(Likelihood()(double(1.0), double(1.0), double(1.0), ScoreStats(1, 1, 2))) == 0.5
    with pytest.raises(RunError, match="range is empty"):
        Likelihood(low=9.0)(double(1.0), double(0.0), double(1.0), STATS)


def test_shared_noise_is_shared_and_independent_noise_is_not():
    schedule, x0, t = NoiseSchedule.scaled_linear(), torch.zeros(4, 1, 2, 2), torch.full((4,), 500)
    predictors = Predictors(None, None)  # type: ignore[arg-type]
    shared = NoInversion()(x0, t, predictors, schedule, PositionDraws(0, [0, 1])).noise
    apart = NoInversion(shared=False)(x0, t, predictors, schedule, PositionDraws(0, [0, 1])).noise
    assert torch.equal(shared[:2], shared[2:])
    assert not torch.isclose(apart[:2], apart[2:]).any()


def test_margin_is_bradley_terry_on_the_reward_and_its_units():
    raw = Margin(standardise=False, temperature=0.5)(double(1.5), double(1.0), double(1.0), STATS)
    assert float(raw) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)
    ours = Margin(temperature=0.5)(double(1.4), double(1.0), double(1.0), STATS)
    assert float(ours) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)
    rescaled = ScoreStats(-20, 30, 100, mean=4, std=8)
    again = Margin(temperature=0.5)(double(14.0), double(10.0), double(1.0), rescaled)
    assert float(again) == pytest.approx(float(ours), abs=1e-12), "a reward's scale doesn't matter"
    level = ScoreStats(1, 1, 4, mean=1, std=0)
    assert float(Margin()(double(1.0), double(1.0), double(1.0), level)) == 0.5


@pytest.mark.parametrize("optimiser", [AdamW(), Adafactor()], ids=lambda o: o.use)
def test_optimisers_go_downhill(optimiser):
    weights = torch.nn.Parameter(torch.tensor([[3.0, -2.0], [1.0, 4.0]]))
    rule = optimiser.build([weights], 0.05)
    start = float(weights.detach().square().sum())
    for _ in range(50):
        rule.zero_grad()
        weights.square().sum().backward()
        rule.step()
    assert float(weights.detach().square().sum()) < 0.5 * start
