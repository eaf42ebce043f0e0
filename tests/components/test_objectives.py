"""Objectives through their components: golden values, what reduces to what, and the laws they share."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smpo.components.objectives import (
    DSPO,
    IPO,
    ConditionalFineTuning,
    ConservativeDPO,
    DiffusionDPO,
    DiffusionKTO,
    GeometricDPO,
    Hinge,
    InversionDPO,
    MaPO,
    RobustDPO,
    SmPO,
    SupervisedFineTuning,
)
from smpo.components.smoothings import Hard, Label, Likelihood, PseudoLabels
from smpo.kinds import Objective, Predicted, ScoreStats
from smpo.maths.schedule import NoiseSchedule
from smpo.registry.component import REGISTRY

GOLDEN = json.loads((Path(__file__).parents[1] / "maths" / "golden.json").read_text())
C = GOLDEN["C_losses"]
SOFT = torch.tensor(GOLDEN["B_labels"]["p_image0"][:3], dtype=torch.float64)
HARD = torch.tensor(C["winner_first"]["image0_is_first"]).double()
"""Certain labels in storage order; the golden file puts image 1 first in the tie."""

ALL: list[Objective] = [
    SmPO(beta=2000),
    DiffusionDPO(beta=2000),
    GeometricDPO(beta=2000),
    ConservativeDPO(beta=2000),
    RobustDPO(beta=2000),
    IPO(beta=2000),
    Hinge(beta=2000),
    DiffusionKTO(beta=1000),
    MaPO(),
    MaPO(form="power", beta=8),
    DSPO(),
    InversionDPO(levels=1),
    SupervisedFineTuning(),
    ConditionalFineTuning(),
]
SILENT_IN_DOUBT = (SmPO, DiffusionDPO, GeometricDPO, ConservativeDPO, RobustDPO, IPO, Hinge, InversionDPO)


def pairs(scale: float = 1.0) -> Predicted:
    def both(name: str) -> torch.Tensor:
        return torch.cat([torch.tensor(C[f"{name}{i}"], dtype=torch.float64) for i in (0, 1)])

    t = torch.full((6,), 473)
    abar = NoiseSchedule.scaled_linear().alphas_cumprod[t]
    reference = both("ref")
    return Predicted(both("tau"), reference + scale * (both("pol") - reference), reference, t, abar=abar)


def test_every_registered_objective_is_tested_here():
    from smpo.components import objectives as package

    assert {type(one) for one in ALL} == {
        one for one in REGISTRY.of("objective").values() if one.__module__.startswith(package.__name__)
    }


@pytest.mark.parametrize(
    ("objective", "p", "loss"),
    [
        (SupervisedFineTuning(), HARD, C["losses"]["sft"]["loss"]),
        (DiffusionDPO(beta=2000), HARD, C["losses"]["dpo_beta2000"]["loss"]),
        (SmPO(beta=2000, gamma=10), SOFT, C["losses"]["smpo_signed_order_free"]["loss"]),
        (SmPO(beta=2000, gamma=1), HARD, C["losses"]["smpo_alpha1_gamma1_equals_dpo"]["loss"]),
        (GeometricDPO(beta=2000), SOFT, C["losses"]["gdpo_beta2000"]["loss"]),
        (ConservativeDPO(beta=2000), 0.1 + 0.8 * HARD, C["losses"]["cdpo_eps0.1_beta2000"]["loss"]),
        (ConservativeDPO(beta=2000), SOFT, None),
        (RobustDPO(beta=2000, flip=0.1), HARD, C["losses"]["robust_dpo_eps0.1_beta2000"]["loss"]),
        (IPO(beta=2000), HARD, C["losses"]["ipo_beta2000"]["loss"]),
        (Hinge(beta=2000), HARD, C["losses"]["hinge_beta2000"]["loss"]),
        (DiffusionKTO(beta=1000), HARD, C["losses"]["diffusion_kto_kto_beta1000"]["loss"]),
        (
            DiffusionKTO(beta=1000, utility="loss-averse"),
            HARD,
            C["losses"]["diffusion_kto_loss_averse_beta1000"]["loss"],
        ),
        (
            DiffusionKTO(beta=1000, utility="risk-seeking"),
            HARD,
            C["losses"]["diffusion_kto_risk_seeking_beta1000"]["loss"],
        ),
        (MaPO(), HARD, C["losses"]["mapo_code_s0.5_beta0.1_T1000"]["loss"]),
        (
            MaPO(form="power", beta=8),
            HARD,
            C["losses"]["mapo_paper_v2_beta8(power form, unverified)"]["loss"],
        ),
        (DSPO(beta=0.001), HARD, C["losses"]["dspo_sd15_beta0.001"]["loss"]),
    ],
    ids=lambda value: value.use if isinstance(value, Objective) else "",
)
def test_golden_losses(objective, p, loss):
    if loss is None:  # the soft golden is given winner first: p of the winner, in the winner's order
        winner_first = torch.where(HARD > 0.5, SOFT, 1 - SOFT)
        assert winner_first.tolist() == pytest.approx(C["losses"]["cdpo_softlabel_beta2000"]["p_hat"])
        loss = C["losses"]["cdpo_softlabel_beta2000"]["loss"]
    assert float(objective(pairs(), p).loss.mean()) == pytest.approx(loss, abs=1e-10)


def test_golden_inversion_dpo_with_two_levels_a_pair():
    golden = C["losses"]["inversion_dpo_beta2000_S2"]
    distance = torch.tensor([*golden["dw"], *golden["dl"]], dtype=torch.float64)  # [2 * levels * 1]
    policy = distance.sqrt().reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    t = torch.tensor(golden["timesteps"] * 2)
    seen = Predicted(policy * 0, policy, policy * 0, t, abar=NoiseSchedule.scaled_linear().alphas_cumprod[t], levels=2)
    out = InversionDPO(beta=2000, levels=2)(seen, torch.ones(1, dtype=torch.float64))
    assert float(out.loss) == pytest.approx(golden["loss"], abs=1e-10)
    assert float(out.margin) == pytest.approx(golden["inside"], abs=1e-10)


# ------------------------------------------------------------------------- method.md 3.10: what reduces to what


@given(p=st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(deadline=None, max_examples=30)
def test_reductions(p):
    p = torch.tensor(p, dtype=torch.float64)
    side = Hard()(p, p, p, ScoreStats(0, 1, 2))
    see = pairs()

    def same(one, p_one, other, p_other):
        torch.testing.assert_close(one(see, p_one).loss, other(see, p_other).loss, rtol=1e-12, atol=1e-14)

    same(SmPO(beta=300, gamma=1), p, GeometricDPO(beta=300), p)
    same(SmPO(beta=300, gamma=10), p, GeometricDPO(beta=3000), p)
    same(SmPO(beta=300, gamma=1), side, DiffusionDPO(beta=300), p)  # the sign of w is all that DPO sees
    same(GeometricDPO(beta=300), side, DiffusionDPO(beta=300), p)
    same(RobustDPO(beta=300, flip=0), p, DiffusionDPO(beta=300), p)
    decided = side != 0.5
    cdpo, dpo = ConservativeDPO(beta=300)(see, side).loss, DiffusionDPO(beta=300)(see, side).loss
    torch.testing.assert_close(cdpo[decided], dpo[decided])
    one = DSPO(beta=1e-12)(see, p).loss
    torch.testing.assert_close(one, SupervisedFineTuning()(see, p).loss, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(MaPO(beta=1e-12)(see, p).loss, SupervisedFineTuning()(see, p).loss, rtol=1e-6, atol=1e-6)


def test_dpo_with_pseudo_labels_is_the_sign_of_smpos_weight():
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    stats, share = ScoreStats(0, 2, 6), torch.ones(3, dtype=torch.float64)
    pseudo = PseudoLabels()(scores[:, 0], scores[:, 1], share, stats)
    smoothed = Likelihood()(scores[:, 0], scores[:, 1], share, stats)
    assert pseudo.tolist() == [1, 0, 0.5]
    assert torch.equal((2 * smoothed - 1).sign(), 2 * pseudo - 1)
    assert torch.equal(
        DiffusionDPO()(pairs(), pseudo).loss,
        DiffusionDPO()(pairs(), smoothed).loss,
    )


def test_robust_dpo_is_unbiased_for_flipped_labels():
    see, p, flip = pairs(), torch.ones(3, dtype=torch.float64), 0.2
    robust = RobustDPO(beta=500, flip=flip)
    expected = (1 - flip) * robust(see, p).loss + flip * robust(see, 1 - p).loss
    torch.testing.assert_close(expected, DiffusionDPO(beta=500)(see, p).loss)


# --------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_swapping_the_pair_changes_nothing(objective):
    see, p = pairs(), torch.tensor([0.9, 0.3, 0.5], dtype=torch.float64)
    torch.testing.assert_close(objective(see, p).loss, objective(see.swapped(), 1 - p).loss, rtol=0, atol=1e-13)


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_permuting_the_batch_permutes_the_losses(objective):
    see, p, order = pairs(), torch.tensor([0.9, 0.3, 0.6], dtype=torch.float64), torch.tensor([2, 0, 1])
    both = torch.cat([order, order + 3])
    moved = replace(
        see,
        target=see.target[both],
        policy=see.policy[both],
        reference=see.reference[both],
        abar=see.abar[both],
    )
    torch.testing.assert_close(objective(see, p).loss[order], objective(moved, p[order]).loss, rtol=0, atol=1e-13)


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_the_loss_at_the_reference_is_the_one_it_declares(objective):
    see, p = pairs(scale=0), torch.tensor([0.9, 0.3, 0.5], dtype=torch.float64)
    if objective.at_reference is not None:
        assert objective(see, p).loss.tolist() == pytest.approx([objective.at_reference] * 3, abs=1e-12)


@pytest.mark.parametrize("objective", [o for o in ALL if isinstance(o, SILENT_IN_DOUBT)], ids=repr)
def test_a_tie_at_the_reference_teaches_nothing(objective):
    see = pairs()
    policy = see.reference.clone().requires_grad_()
    objective(replace(see, policy=policy), torch.full((3,), 0.5).double()).loss.sum().backward()
    assert float(policy.grad.abs().max()) == 0


@pytest.mark.parametrize("objective", [o for o in ALL if o.needs_reference and o.use != "inversion-dpo"], ids=repr)
def test_learning_lowers_the_preferred_error(objective):
    """From the reference, a step down the loss denoises the preferred image better: all agree where to go."""
    see, p = pairs(), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    policy = see.reference.clone().requires_grad_()
    objective(replace(see, policy=policy), p).loss.sum().backward()
    step = policy.detach() - 1e-4 * policy.grad / policy.grad.abs().max()
    winner, loser = replace(see, policy=step).gaps()
    preferred = torch.where(p > 0.5, winner, loser)
    assert bool((preferred < 0).all())


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_a_margin_points_to_the_first_image(objective):
    see = pairs()
    better = see.target + 0.9 * (see.reference - see.target)  # the policy denoises first images better
    half = torch.cat([better[:3], see.reference[3:]])
    margin = objective(replace(see, policy=half), torch.ones(3, dtype=torch.float64)).margin
    if objective.needs_reference:
        assert bool((margin > 0).all())
    assert margin.shape == (3,) and not margin.requires_grad


def test_ipo_and_hinge_are_content_with_a_finite_margin():
    see, p = pairs().swapped(), torch.ones(3, dtype=torch.float64)
    winner, loser = see.gaps()
    assert float(-(winner - loser)[1]) > 1 / 2000
    assert float(Hinge(beta=2000)(see, p).loss[1]) == 0
    goal = IPO(beta=0.5 / float(-(winner - loser)[1]))
    assert float(goal(see, p).loss[1]) == pytest.approx(0, abs=1e-24)


def test_inversion_dpo_starts_without_a_gradient():
    see = pairs()
    policy = see.reference.clone().requires_grad_()
    out = InversionDPO(levels=1)(replace(see, policy=policy), torch.ones(3, dtype=torch.float64))
    out.loss.sum().backward()
    assert float(policy.grad.abs().max()) == 0 and out.loss.tolist() == pytest.approx([math.log(2)] * 3)


def test_kto_uses_the_mean_it_is_given_and_labels_of_images():
    see, p = pairs(), torch.ones(3, dtype=torch.float64)
    alone = DiffusionKTO(beta=1000)
    own = alone.batch_means(see, p)["gain"].mean()
    told = alone(replace(see, means={"gain": own}), p)
    torch.testing.assert_close(told.loss, alone(see, p).loss)
    other = alone(replace(see, means={"gain": own + 1}), p)
    assert not torch.allclose(other.loss, told.loss)
    worse = alone(replace(see, means={"gain": own - 9}), p)
    assert worse.metrics["z0"].tolist() == [0, 0, 0], "a policy that got worse isn't compared with itself"
    labels = torch.tensor([True, True, False, False, True, False])
    mixed = alone(replace(see, desirable=labels), p)
    assert mixed.metrics["desirable"].tolist() == [0.5, 1.0, 0.0]
    gap = torch.cat(see.gaps())
    from smpo.maths.baselines import kto

    image = kto(gap, labels, 1000)
    torch.testing.assert_close(mixed.loss, (image[:3] + image[3:]) / 2)


def test_doubts_are_about_company():
    from smpo.components.inversions import DDIMInversion, NoInversion

    forward, path = NoInversion(), DDIMInversion(by="reference")
    for objective in (MaPO(), DiffusionKTO(), DSPO(), SupervisedFineTuning(), ConditionalFineTuning()):
        assert any("invert" in text or "inversion" in text for text in objective.warnings(Hard(), path))
    assert any("shared" in text for text in DiffusionKTO().warnings(Hard(), forward))
    assert not list(DiffusionKTO().warnings(Hard(), NoInversion(shared=False)))
    assert any("own path" in text for text in InversionDPO().warnings(Hard(), forward))
    assert not list(InversionDPO().warnings(Hard(), path))
    for objective in (SmPO(), GeometricDPO(), ConservativeDPO()):
        assert any("Diffusion-DPO" in text for text in objective.warnings(Hard(), forward))
        assert not list(objective.warnings(Label(), forward))
