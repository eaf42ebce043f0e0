"""What inversions promise: x_t and noise that belong together, and a price that is the one paid."""

import pytest
import torch

from smpo.components.inversions import (
    BlendedInversion,
    CommonInversion,
    DDIMInversion,
    NoInversion,
    ReNoise,
)
from smpo.kinds import Predictors
from smpo.maths.draws import PositionDraws
from smpo.maths.hops import InversionConfig
from smpo.maths.inversion import invert
from smpo.maths.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()
INVERSIONS = [
    NoInversion(),
    NoInversion(shared=False),
    DDIMInversion(steps=5),
    DDIMInversion(steps=5, extra_noise=0.1),
    DDIMInversion(steps=5, guidance=3.0),
    DDIMInversion(steps=5, by="reference", guidance=2.0),
    ReNoise(steps=5),
    ReNoise(steps=5, by="reference"),
    ReNoise(steps=5, refinements=2, weights=[0.25, 0.25, 0.5]),
    ReNoise(steps=5, refinements=3, where="last"),
    ReNoise(steps=5, refinements=3, where="last", skip_first=True, guidance=2.0),
    ReNoise(steps=5, reuse_last=True),
    ReNoise(steps=5, refinements=2, reuse_last=True, guidance=2.0, skip_first=True),
    BlendedInversion(steps=5, fresh=0.3),
    BlendedInversion(steps=5, fresh=0.3, shared=False, where="last"),
    CommonInversion(steps=5),
]
OFFICIAL = [
    ReNoise(steps=5, refinements=2, where=where, convention=convention, start="alpha0")
    for where in ("every", "last")
    for convention in ("lt_0_22", "ge_0_22")
]


class Network:
    """ε = gain · x, counting the rows it was asked about."""

    def __init__(self, gain: float) -> None:
        self.gain, self.asked = gain, 0

    def __call__(self, x, t, rows):
        self.asked += len(x)
        return self.gain * x


def networks() -> Predictors:
    return Predictors(Network(0.3), Network(0.2), Network(0.25), Network(0.15))


def asked(predictors: Predictors) -> dict[str, int]:
    return {name: one.asked for name, one in vars(predictors).items() if isinstance(one, Network)}


def latents(pairs: int, *shape: int) -> torch.Tensor:
    return torch.randn(2 * pairs, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("inversion", INVERSIONS, ids=repr)
def test_noise_explains_the_latent_exactly(inversion):
    t = torch.arange(10, 1000, 33)
    x0, both = latents(len(t), 1, 2, 2), t.repeat(2)
    noised = inversion(x0, both, networks(), SCHEDULE, PositionDraws(0, range(len(t))))
    assert torch.allclose(noised.x_t, SCHEDULE.add_noise(x0, noised.noise, both), atol=1e-9)


@pytest.mark.parametrize("inversion", [*INVERSIONS, *OFFICIAL], ids=repr)
def test_the_price_is_the_one_announced(inversion):
    predictors = networks()
    every = torch.arange(40, 980)
    noised = inversion(
        torch.zeros(2 * len(every), 1, 1, 1), every.repeat(2), predictors, SCHEDULE,
        PositionDraws(0, range(len(every))),
    )  # fmt: skip
    paid = asked(predictors)
    assert noised.passes == sum(paid.values())
    assert noised.passes / (2 * len(every)) == pytest.approx(inversion.expected_passes(1000, 40, 979))
    followed = getattr(inversion, "by", "policy")
    allowed = {followed, f"{followed}_empty"} if inversion.needs_unconditional else {followed}
    assert {name for name, rows in paid.items() if rows} <= allowed
    assert inversion.needs_reference == (paid["reference"] > 0)
    assert inversion.needs_unconditional == (paid[f"{followed}_empty"] > 0)


@pytest.mark.parametrize("inversion", INVERSIONS, ids=repr)
def test_a_sample_does_not_depend_on_its_company(inversion):
    """Each pair alone, or all at once."""
    t = torch.tensor([1, 250, 473, 999])
    x0 = latents(4, 1, 2, 2)
    whole = inversion(x0, t.repeat(2), networks(), SCHEDULE, PositionDraws(0, range(4)))
    for i in range(4):
        rows = torch.tensor([i, 4 + i])
        alone = inversion(x0[rows], t[[i, i]], networks(), SCHEDULE, PositionDraws(0, [i]))
        torch.testing.assert_close(alone.x_t, whole.x_t[rows], rtol=0, atol=1e-12)


def test_guidance_extrapolates_from_the_empty_prompt():
    t, x0 = torch.tensor([300, 300]), latents(1, 1, 2, 2)
    told = DDIMInversion(steps=4, guidance=3.0)(x0, t, networks(), SCHEDULE, PositionDraws(0, [0]))
    plain = invert(x0, t, Network(0.25 + 3 * (0.3 - 0.25)), SCHEDULE, InversionConfig(steps=4, refinements=0))
    torch.testing.assert_close(told.x_t, plain.x_t)


def test_refining_the_last_hop_only():
    t, x0, draws = torch.tensor([1, 150, 473, 999]).repeat(2), latents(4, 1, 2, 2), PositionDraws(0, range(4))
    last = ReNoise(steps=5, where="last")(x0, t, networks(), SCHEDULE, draws)
    every = ReNoise(steps=5)(x0, t, networks(), SCHEDULE, draws)
    ddim = DDIMInversion(steps=5)(x0, t, networks(), SCHEDULE, draws)
    one_hop = t == 1
    torch.testing.assert_close(last.x_t[one_hop], every.x_t[one_hop])
    assert not torch.isclose(last.x_t[~one_hop], every.x_t[~one_hop]).all(1).any()
    assert not torch.isclose(last.x_t, ddim.x_t).flatten(1).all(1).any()
    # By hand: DDIM up to the last level below t, then one averaged correction.
    from smpo.maths.inversion import move

    below = torch.tensor([0, 1, 401, 801]).repeat(2)  # the level from which the last hop starts
    some = t > 1
    start = invert(x0[some], below[some], Network(0.3), SCHEDULE, InversionConfig(steps=5, refinements=0)).x_t
    a, b = (SCHEDULE.abar_exact(level[some], start) for level in (below, t))
    there = move(start, 0.3 * start, a, b)
    torch.testing.assert_close(last.x_t[some], move(start, (0.3 * start + 0.3 * there) / 2, a, b))


def test_weights_override_the_mean():
    t, x0, draws = torch.tensor([473, 473]), latents(1, 1, 2, 2), PositionDraws(0, [0])
    even = ReNoise(steps=5, weights=[0.5, 0.5])(x0, t, networks(), SCHEDULE, draws)
    torch.testing.assert_close(even.x_t, ReNoise(steps=5)(x0, t, networks(), SCHEDULE, draws).x_t)
    first = ReNoise(steps=5, weights=[1.0, 0.0])(x0, t, networks(), SCHEDULE, draws)
    torch.testing.assert_close(first.x_t, DDIMInversion(steps=5)(x0, t, networks(), SCHEDULE, draws).x_t)
    with pytest.raises(ValueError, match="need 3 weights"):
        ReNoise(refinements=2, weights=[0.5, 0.5])


def test_blend_goes_from_inversion_to_forward_noise():
    t, x0, draws = torch.tensor([300, 800]).repeat(2), latents(2, 1, 2, 2), PositionDraws(0, range(2))

    def blended(fresh):
        return BlendedInversion(steps=5, fresh=fresh)(x0, t, networks(), SCHEDULE, draws)

    torch.testing.assert_close(blended(0.0).noise, ReNoise(steps=5)(x0, t, networks(), SCHEDULE, draws).noise)
    torch.testing.assert_close(
        blended(1.0).noise, NoInversion()(x0, t, networks(), SCHEDULE, draws).noise, rtol=1e-6, atol=1e-6
    )
    from smpo.maths.mixing import blend

    one, other = (torch.randn(20_000, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    assert float(blend(one, other, 0.3).var()) == pytest.approx(1, abs=0.03)


def test_common_noise_is_common_and_as_strong():
    t, x0, draws = torch.tensor([300, 800]).repeat(2), latents(2, 4, 8, 8), PositionDraws(0, range(2))
    apart = ReNoise(steps=5)(x0, t, networks(), SCHEDULE, draws).noise
    both = CommonInversion(steps=5)(x0, t, networks(), SCHEDULE, draws).noise
    assert torch.equal(both[:2], both[2:])
    power = apart.square().flatten(1).mean(1)
    torch.testing.assert_close(both.square().flatten(1).mean(1)[:2], (power[:2] + power[2:]) / 2)


def test_inpos_noise_has_the_variance_of_a_ddim_step():
    """As diffusers' scheduler computes it."""
    from diffusers import DDIMScheduler

    from smpo.maths.mixing import inpo_noise

    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False)
    t = torch.tensor([1, 301, 601])
    zero, one = torch.zeros(3, 1), torch.ones(3, 1)
    ours = inpo_noise(zero, one, t, SCHEDULE, delta=100, scale=0.1).flatten()
    variance = torch.stack([theirs._get_variance(int(k) + 100, int(k)) for k in t])
    torch.testing.assert_close(ours, 0.1 * variance.sqrt().float(), rtol=1e-4, atol=1e-6)
    assert float(inpo_noise(zero[:1], one[:1], torch.tensor([999]), SCHEDULE, delta=100, scale=1)) == 0
