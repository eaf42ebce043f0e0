"""Stale inversions: remembered ways are the ways that were walked, and cost one hop where they reach."""

from pathlib import Path

import pytest
import torch

from smpo.components.inversions import ReNoise, StaleInversion
from smpo.kinds import Predictors
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()
PLANE = Path(__file__).parents[2] / "experiments" / "plane_smpo.yaml"


class Network:
    def __init__(self, gain: float = 0.3) -> None:
        self.gain, self.asked = gain, 0

    def __call__(self, x, t, rows):
        self.asked += len(x)
        return self.gain * torch.tanh(x + t.reshape(-1, *[1] * (x.ndim - 1)) / 1000)


def latents(pairs: int) -> torch.Tensor:
    return torch.randn(2 * pairs, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def visit(inversion, network, update, t, x0, *, batch=4, levels=1):
    pairs = len(x0) // 2 // levels
    names = [f"{side}{pair}" for side in "wl" for _ in range(levels) for pair in range(pairs)]
    predict = Predictors(network, network, levels=levels, pictures=names)
    draws = PositionDraws(0, range(update * batch, update * batch + pairs))
    return inversion(x0, torch.tensor(t).repeat(2), predict, SCHEDULE, draws)


def test_with_the_same_weights_a_remembered_way_leads_where_a_fresh_one_does():
    run, fresh, x0 = StaleInversion(steps=6).bind(4), ReNoise(steps=6), latents(4)
    spent = []
    for update, t in enumerate([[10, 400, 900, 650], [999, 320, 3, 650], [1, 999, 901, 167]]):
        network = Network()
        found, wanted = visit(run, network, update, t, x0), visit(fresh, Network(), update, t, x0)
        torch.testing.assert_close(found.x_t, wanted.x_t, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.noise, wanted.noise, rtol=0, atol=1e-9)
        assert found.passes == network.asked
        spent.append((found.passes, wanted.passes))
    assert spent[0][0] == spent[0][1] and all(found < wanted for found, wanted in spent[1:])


def test_a_way_that_reaches_costs_one_hop_and_an_old_one_is_walked_anew():
    run, x0 = StaleInversion(steps=10, max_age=3).bind(4), latents(1)
    assert visit(run, Network(), 0, [900], x0).passes == 2 * 2 * 10
    assert visit(run, Network(), 2, [850], x0).passes == 2 * 2
    assert visit(run, Network(), 3, [999], x0).passes == 2 * 2 * 2  # level 901, then the timestep
    assert visit(run, Network(), 4, [850], x0).passes == 2 * 2 * 10


def test_only_the_last_hop_asks_the_new_policy():
    run, x0 = StaleInversion(steps=10).bind(4), latents(1)
    visit(run, Network(0.3), 0, [900], x0)
    old = visit(ReNoise(steps=10), Network(0.3), 0, [801], x0).x_t
    found = visit(run, Network(0.5), 1, [850], x0).x_t
    from smpo.maths.inversion import move

    a, b = (SCHEDULE.abar_exact(torch.tensor([level] * 2), old) for level in (801, 850))
    t, rows = torch.tensor([850] * 2), torch.arange(2)
    first = Network(0.5)(old, t, rows)
    mean = (first + Network(0.5)(move(old, first, a, b), t, rows)) / 2
    torch.testing.assert_close(found, move(old, mean, a, b), rtol=0, atol=1e-12)


def test_a_neighbouring_latent_takes_the_remembered_noise():
    """The posterior is drawn from anew at each visit."""
    run, x0 = StaleInversion(steps=10).bind(4), latents(1)
    visit(run, Network(), 0, [900], x0)
    found = visit(run, Network(), 1, [850], x0 + 0.01)
    torch.testing.assert_close(found.x_t, SCHEDULE.add_noise(x0 + 0.01, found.noise, torch.tensor([850] * 2)))
    wanted = visit(ReNoise(steps=10), Network(), 1, [850], x0 + 0.01)
    assert float((found.x_t - wanted.x_t).abs().max()) < 0.01


def test_windows_of_an_update_do_not_see_each_other():
    x0, t = latents(2), [900, 850]
    whole, parts = StaleInversion(steps=6).bind(4), StaleInversion(steps=6).bind(4)
    one = visit(whole, Network(), 0, t, x0)
    for i in range(2):
        rows = [i, 2 + i]
        names = [f"w{i}", f"l{i}"]
        found = parts(
            x0[rows],
            torch.tensor([t[i]] * 2),
            Predictors(Network(), Network(), pictures=names),
            SCHEDULE,
            PositionDraws(0, [i]),
        )
        torch.testing.assert_close(found.x_t, one.x_t[rows])
    same = dict(sorted(whole.state().items()))
    torch.testing.assert_close(dict(sorted(parts.state().items())), same)


def test_several_timesteps_of_an_image_share_one_memory():
    run, x0 = StaleInversion(steps=6).bind(4), latents(1).repeat_interleave(2, 0)
    for update, t in enumerate([[100, 700], [300, 999], [20, 420]]):
        found = visit(run, Network(), update, t, x0, levels=2)
        wanted = visit(ReNoise(steps=6), Network(), update, t, x0)
        torch.testing.assert_close(found.x_t, wanted.x_t, rtol=0, atol=1e-12)


def test_a_memory_goes_through_a_checkpoint():
    first, second, x0 = StaleInversion(steps=6).bind(4), StaleInversion(steps=6).bind(4), latents(2)
    visit(first, Network(), 0, [900, 400], x0)
    second.load_state(first.state())
    one, other = (visit(run, Network(0.4), 1, [800, 500], x0) for run in (first, second))
    assert torch.equal(one.x_t, other.x_t) and one.passes == other.passes


@pytest.mark.parametrize(
    "settings", [{}, {"where": "last", "refinements": 2}, {"skip_first": True, "steps": 4}]
)
@pytest.mark.parametrize("visits", [1, 2, 4])
def test_the_mean_price_is_what_visits_at_random_times_cost(settings, visits):
    inversion = StaleInversion(**{"steps": 10, "max_age": visits - 1 or 1} | settings)
    gap = 1.0 if visits > 1 else 2.0
    pairs, paid = 3000, 0
    run, generator = inversion.bind(pairs), torch.Generator().manual_seed(1)
    x0 = torch.zeros(2 * pairs, 1, 1, 1)
    for update in range(visits):
        t = torch.randint(40, 980, (pairs,), generator=generator).tolist()
        paid += visit(run, Network(), update, t, x0, batch=pairs).passes
    mean = inversion.mean_passes(1000, 40, 979, gap=gap)
    assert paid / visits / (2 * pairs) == pytest.approx(mean, rel=0.02)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    """The memory is part of the state."""
    from smpo.components.objectives import SmPO
    from smpo.engine.checkpoints.checkpoint import restore, save
    from smpo.engine.checkpoints.train_state import TrainState
    from smpo.engine.loop import fit
    from tests.engine.toys import toy_batches, toy_session

    def session(inversion):
        from dataclasses import replace

        made = toy_session(SmPO(beta=10.0), inversion, steps=6, batch=4, micro=4)

        def batches(step):
            """The same four pairs at every update, at places of their own."""
            for batch in toy_batches(4, 4)(0):
                yield replace(
                    batch,
                    position=batch.position + 4 * step,
                    pictures=[f"{i}" for i in range(2 * len(batch))],
                )

        made.batches = batches
        return made

    def named(made):
        return dict(made.denoiser.policy.named_parameters())

    def state(made):
        return TrainState(named(made), made.optimiser, inversion=made.inversion)

    whole = session(StaleInversion(steps=4).bind(4))
    passes = [report.metrics["passes"] for report in fit(whole)]
    assert passes[-1] < passes[0]
    first = session(StaleInversion(steps=4).bind(4))
    for report in fit(first):
        if report.step == 3:
            save(tmp_path, 3, state(first), spec_hash="x", keep=1)
            break
    second = session(StaleInversion(steps=4).bind(4))
    start = restore(tmp_path, state(second), say=pytest.fail).step
    assert [report.metrics["passes"] for report in fit(second, start)] == passes[3:]
    for name, weight in named(whole).items():
        assert torch.equal(weight, named(second)[name])


def test_words_for_what_cannot_be():
    for settings, word in (
        ({"convention": "ge_0_22"}, "remembers nothing"),
        ({"reuse_last": True}, "no last"),
    ):
        with pytest.raises(ValueError, match=word):
            StaleInversion(**settings)
