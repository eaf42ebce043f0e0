"""Laws that every component of a kind obeys, and golden values through the components themselves."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.components.inversions import DDIMInversion, NoInversion, ReNoise
from smpo.components.objectives import ConservativeDPO, DiffusionDPO, SmPO, SupervisedFineTuning
from smpo.components.optimisers import Adafactor, AdamW
from smpo.components.smoothings import Hard, Label, Likelihood, Votes
from smpo.errors import RunError
from smpo.kinds import Predicted, Predictors, ScoreStats
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule

GOLDEN = json.loads((Path(__file__).parents[1] / "maths" / "golden.json").read_text())
STATS = ScoreStats(low=-2.0, high=3.0, count=100)
SMOOTHINGS = [Hard(), Label(epsilon=0.2), Votes(), Likelihood(), Likelihood(temperature=0.2)]
PREFERENCE = [SmPO(beta=2000), DiffusionDPO(beta=2000), ConservativeDPO(beta=2000)]
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


@given(w=floats, other=floats, loser=floats)
def test_likelihood_rises_with_the_winner_s_score(w, other, loser):
    p, q = (Likelihood()(double(x), double(loser), double(1.0), STATS) for x in (w, other))
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


def golden_pairs() -> Predicted:
    c = GOLDEN["C_losses"]

    def both(name: str) -> torch.Tensor:
        return torch.cat([torch.tensor(c[f"{name}{i}"], dtype=torch.float64) for i in (0, 1)])

    return Predicted(both("tau"), both("pol"), both("ref"), torch.full((6,), 10))


def test_smpo_component_meets_the_golden_loss_in_storage_order():
    p = torch.tensor(GOLDEN["B_labels"]["p_image0"][:3], dtype=torch.float64)
    out = SmPO(beta=2000, gamma=10)(golden_pairs(), p)
    assert float(out.loss.mean()) == pytest.approx(0.6025205809026858, abs=1e-10)


def test_dpo_is_smpo_with_gamma_one_and_certain_labels():
    pairs, p = golden_pairs(), torch.ones(3, dtype=torch.float64)
    ours = SmPO(beta=2000, gamma=1)(pairs, p).loss
    assert torch.equal(ours, DiffusionDPO(beta=2000)(pairs, p).loss)
    assert torch.equal(ours, ConservativeDPO(beta=2000)(pairs, p).loss)


@pytest.mark.parametrize("objective", PREFERENCE, ids=lambda o: o.use)
def test_swapping_the_pair_changes_nothing(objective):
    pairs = golden_pairs()
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    swapped = Predicted(pairs.target[order], pairs.policy[order], pairs.reference[order], pairs.t)
    p = double(0.9, 0.3, 0.5)
    assert torch.allclose(objective(pairs, p).loss, objective(swapped, 1 - p).loss, atol=1e-14)


@pytest.mark.parametrize("objective", [*PREFERENCE, SupervisedFineTuning()], ids=lambda o: o.use)
def test_permuting_the_batch_permutes_the_losses(objective):
    pairs, p, order = golden_pairs(), double(0.9, 0.3, 0.6), torch.tensor([2, 0, 1])
    both = torch.cat([order, order + 3])
    moved = Predicted(pairs.target[both], pairs.policy[both], pairs.reference[both], pairs.t)
    assert torch.allclose(objective(pairs, p).loss[order], objective(moved, p[order]).loss, atol=1e-14)


@pytest.mark.parametrize("objective", PREFERENCE, ids=lambda o: o.use)
def test_doubt_at_the_reference_gives_no_gradient_and_a_known_loss(objective):
    pairs = golden_pairs()
    policy = pairs.reference.clone().requires_grad_()
    out = objective(Predicted(pairs.target, policy, pairs.reference, pairs.t), double(0.5, 0.5, 0.5))
    out.loss.sum().backward()
    assert out.loss.tolist() == pytest.approx([objective.at_reference] * 3, abs=1e-12)
    assert float(policy.grad.abs().max()) == 0


@pytest.mark.parametrize(
    "inversion",
    [
        NoInversion(),
        NoInversion(shared=False),
        DDIMInversion(steps=5),
        ReNoise(steps=5),
        ReNoise(steps=5, by="reference"),
    ],
    ids=repr,
)
def test_inversions_promise_x_t_and_cost(inversion):
    schedule = NoiseSchedule.scaled_linear()
    t = torch.arange(10, 1000, 33)
    x0 = torch.randn(2 * len(t), 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked = {"policy": 0, "reference": 0}

    def network(name, gain):
        def predict(x, t, rows):
            asked[name] += len(x)
            return gain * x

        return predict

    draws = PositionDraws(0, range(len(t)))
    both = t.repeat(2)
    noised = inversion(
        x0, both, Predictors(network("policy", 0.3), network("reference", 0.2)), schedule, draws
    )
    assert torch.allclose(noised.x_t, schedule.add_noise(x0, noised.noise, both), atol=1e-9)
    by = getattr(inversion, "by", "policy")
    assert asked[by] == noised.passes and sum(asked.values()) == noised.passes
    every = torch.arange(1000)
    asked.update(policy=0, reference=0)
    x0 = torch.zeros(2000, 1, 1, 1)
    inversion(x0, every.repeat(2), Predictors(network("policy", 0.3), network("reference", 0.2)), schedule,
              PositionDraws(0, range(1000)))  # fmt: skip
    assert sum(asked.values()) / 2000 == pytest.approx(inversion.expected_passes(1000, 0, 999))


def test_shared_noise_is_shared_and_independent_noise_is_not():
    schedule, x0, t = NoiseSchedule.scaled_linear(), torch.zeros(4, 1, 2, 2), torch.full((4,), 500)
    predictors = Predictors(None, None)  # type: ignore[arg-type]
    shared = NoInversion()(x0, t, predictors, schedule, PositionDraws(0, [0, 1])).noise
    apart = NoInversion(shared=False)(x0, t, predictors, schedule, PositionDraws(0, [0, 1])).noise
    assert torch.equal(shared[:2], shared[2:])
    assert not torch.isclose(apart[:2], apart[2:]).any()


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
