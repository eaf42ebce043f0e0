"""The training loop: what it starts from, what it must not depend on, and how it stops."""

import pytest
import torch

from smpo.components.inversions import DDIMInversion, NoInversion, ReNoise
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
from smpo.engine.learning_rate import LearningRate
from smpo.engine.loop import fit
from smpo.engine.monitoring.alerts import NonFiniteLoss, RunawayInversion, WinnerDrop
from smpo.errors import RunError
from tests.engine.toys import ROUNDING, moved, toy_session

INVERSIONS = [
    NoInversion(),
    NoInversion(shared=False),
    DDIMInversion(steps=4),
    ReNoise(steps=4, by="reference"),
    ReNoise(steps=4, guidance=2.0, where="last"),
]
OBJECTIVES = [
    SmPO(beta=50),
    DiffusionDPO(beta=50),
    GeometricDPO(beta=50),
    ConservativeDPO(beta=50),
    RobustDPO(beta=50),
    IPO(beta=50),
    Hinge(beta=50),
    DiffusionKTO(beta=50),
    MaPO(),
    DSPO(),
    InversionDPO(levels=3),
    SupervisedFineTuning(),
    ConditionalFineTuning(),
]


def weights(session) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in session.parameters])


@pytest.mark.parametrize("inversion", INVERSIONS, ids=lambda i: f"{i.use}")
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.use)
def test_first_loss_is_known_and_training_moves_the_policy_only(objective, inversion):
    session = toy_session(objective, inversion)
    before, reference = weights(session).clone(), [p.clone() for p in session.denoiser.reference.parameters()]
    reports = list(fit(session))
    if objective.at_reference is not None:
        assert reports[0].metrics["loss"] == pytest.approx(objective.at_reference, abs=1e-6)
        assert reports[0].metrics["margin"] == pytest.approx(0, abs=1e-6)
        assert reports[0].metrics["implicit_accuracy"] == 0.5, "a margin of zero is half right"
    assert not torch.equal(before, weights(session))
    assert all(torch.equal(a, b) for a, b in zip(reference, session.denoiser.reference.parameters(), strict=True))
    assert [r.step for r in reports] == [1, 2, 3, 4, 5]


def test_training_raises_the_margin():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4, by="reference"), steps=40, p=0.9, lr=3e-3)
    reports = list(fit(session))
    assert reports[-1].metrics["margin"] > 0.1
    assert reports[-1].metrics["implicit_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("objective", "micro"),
    [
        (SmPO(beta=50), 1),
        (SmPO(beta=50), 2),
        (SmPO(beta=50), 4),
        (SmPO(beta=50), 3),
        (SmPO(beta=50), 7),
        (DiffusionKTO(beta=50), 1),
        (DiffusionKTO(beta=50), 4),
        (DiffusionKTO(beta=50), 5),
        (InversionDPO(levels=3), 2),
        (MaPO(), 2),
    ],
    ids=repr,
)
def test_micro_batches_do_not_change_the_result(objective, micro):
    """Nor does it matter that the last of an update is smaller (8 = 3 + 3 + 2 = 7 + 1 = 5 + 3)."""
    whole, parts = (moved(toy_session(objective, ReNoise(steps=4), micro=m, exact=True)) for m in (8, micro))
    one, other = list(fit(whole)), list(fit(parts))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=0, atol=ROUNDING)
    assert one[-1].metrics["tau_squared"] == pytest.approx(
        other[-1].metrics["tau_squared"],
        rel=24 * 2**-24,  # a mean of at most 8 * 3 positive numbers in float32
    )


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if not o.needs_reference], ids=lambda o: o.use)
def test_objectives_without_reference_never_ask_it(objective):
    session = toy_session(objective, NoInversion())
    session.denoiser.reference = None
    assert len(list(fit(session))) == 5


def test_ktos_mean_is_that_of_the_whole_update():
    """z0 is a quantity of the update, so every micro-batch reports the same one; and it costs what it says."""
    session = toy_session(DiffusionKTO(beta=50), NoInversion(shared=False), steps=30, micro=2, lr=3e-3)
    calls = {True: 0, False: 0}
    predict = session.denoiser.predict

    def counted(x, t, cond, *, reference=False, inverting=False):
        calls[reference] += len(x)
        return predict(x, t, cond, reference=reference)

    session.denoiser.predict = counted
    reports = list(fit(session))
    assert calls == {True: 30 * 16, False: 2 * 30 * 16}
    z0 = [report.metrics["z0"] for report in reports]
    assert z0[0] == 0 and z0[-1] > 0
    assert reports[-1].metrics["desirable"] == pytest.approx(0.8, abs=0.25)


def test_images_without_a_partner_have_timesteps_of_their_own():
    from smpo.engine.step import invert_batch

    for objective, same in ((DiffusionDPO(), True), (DiffusionKTO(), False)):
        session = toy_session(objective, NoInversion())
        batch = next(iter(session.batches(0)))
        noised = invert_batch(
            batch,
            session.draws(batch.position),
            denoiser=session.denoiser,
            inversion=session.inversion,
            objective=objective,
            settings=session.settings,
        )
        first, second = noised.t.chunk(2)
        assert torch.equal(first, second) is same


def test_levels_of_a_pair_lie_one_in_each_stratum():
    from smpo.engine.step import invert_batch

    session = toy_session(InversionDPO(levels=4), DDIMInversion(steps=4, by="reference"))
    batch = next(iter(session.batches(0)))
    noised = invert_batch(
        batch,
        session.draws(batch.position),
        denoiser=session.denoiser,
        inversion=session.inversion,
        objective=session.objective,
        settings=session.settings,
    )
    t = noised.t.reshape(2, 4, 8)
    assert torch.equal(t[0], t[1])
    assert torch.equal(t[0] // 250, torch.arange(4)[:, None].expand(4, 8))
    x0 = batch.mean.reshape(2, 8, 1, 2, 2)
    for side in range(2):
        for level in range(4):
            rows = slice((side * 4 + level) * 8, (side * 4 + level + 1) * 8)
            abar = session.denoiser.schedule.abar(t[side, level], x0[side])
            epsilon = noised.noise[rows]
            expected = abar.sqrt() * x0[side] + (1 - abar).sqrt() * epsilon
            torch.testing.assert_close(noised.x_t[rows], expected, rtol=1e-4, atol=1e-4)


def test_margins_by_timestep_average_to_the_margin():
    session = toy_session(DiffusionDPO(beta=50), NoInversion(), steps=20, batch=64, micro=16, p=1.0)
    last = list(fit(session))[-1].metrics
    bins = [f"margin/t{low:03d}-{low + 249:03d}" for low in (0, 250, 500, 750)]
    assert set(bins) == {name for name in last if name.startswith("margin/")}
    assert min(last[name] for name in bins) < last["margin"] < max(last[name] for name in bins)


def test_the_reference_gap_of_winners_is_watched():
    session = toy_session(DiffusionDPO(beta=50), NoInversion(), steps=3, p=1.0)
    first, *_, last = list(fit(session))
    assert first.metrics["gap/winner"] == 0 == first.metrics["gap/loser"]
    assert last.metrics["gap/winner"] != 0


def test_doubtful_pairs_teach_nothing():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4), p=0.5)
    report = next(iter(fit(session)))
    assert report.metrics["grad_norm"] == 0


def test_stopping_and_going_on_is_the_same_as_never_stopping(tmp_path):
    from smpo.engine.checkpoints.checkpoint import restore
    from smpo.engine.checkpoints.train_state import TrainState
    from tests.engine.states import save

    def state(session):
        named = dict(session.denoiser.policy.named_parameters())
        return TrainState(named, session.optimiser, session.average, session.scaler)

    straight = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    list(fit(straight))

    first = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    for report in fit(first):
        if report.step == 3:
            save(tmp_path, 3, state(first), spec_hash="x", keep=2)
            break
    second = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    start = restore(tmp_path, state(second), say=pytest.fail).step
    assert start == 3
    list(fit(second, start))
    assert torch.equal(weights(straight), weights(second)), "bit for bit"
    for name, value in straight.average.shadow.items():
        assert torch.equal(value, second.average.shadow[name])


def test_a_broken_loss_stops_before_the_weights_are_touched():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4))
    batches = session.batches

    def poisoned(step):
        for batch in batches(step):
            if step == 2:
                batch.mean[3] = float("nan")
            yield batch

    session.batches = poisoned
    kept = None
    with pytest.raises(NonFiniteLoss) as caught:
        for _ in fit(session):
            kept = weights(session).clone()
    assert torch.equal(kept, weights(session))
    assert [s.pair for s in caught.value.suspects] == ["pair-19"]
    assert "update 3" in str(caught.value) and "was not applied" in str(caught.value)


def test_policy_and_reference_must_agree_at_the_start():
    session = toy_session(SmPO(beta=50), NoInversion())
    with torch.no_grad():
        next(session.denoiser.reference.parameters()).add_(0.1)
    with pytest.raises(RunError, match=r"before any training the loss should be 0\.693147"):
        next(iter(fit(session)))


def test_learning_rate():
    rate = LearningRate(1.0, steps=10, warmup=4, schedule="linear")
    assert [rate.at(k) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate.at(4) == 1.0 and rate.at(9) == pytest.approx(1 / 6)
    assert LearningRate(1.0, 10, 0, "cosine").at(5) == pytest.approx(0.5)
    assert LearningRate(1.0, 10, 2).at(9) == 1.0
    waiting = LearningRate(1.0, 10, 2, from_zero=True)  # diffusers' constant_with_warmup
    assert [waiting.at(step) for step in range(4)] == [0, 0.5, 1, 1]


def test_runaway_alarm_speaks_once_and_not_about_health():
    alarm = RunawayInversion()
    assert all(alarm.watch(1.0 + 0.1 * (k % 3)) is None for k in range(30))
    assert "running away" in (alarm.watch(9.0) or "")
    assert alarm.watch(500.0) is None
    assert "from the start" in (RunawayInversion().watch(450.0) or ""), "also in the very first update"


def test_winner_alarm_waits_until_it_is_sure_and_speaks_once():
    def metrics(rise: float) -> dict[str, float]:
        return {"error/winner": 0.2 * (1 + rise), "gap/winner": 0.2 * rise}

    calm = WinnerDrop()
    assert all(calm.watch(metrics(0.04)) is None for _ in range(100))
    alarm = WinnerDrop()
    said = [alarm.watch(metrics(0.10)) for _ in range(40)]
    assert [i for i, text in enumerate(said) if text] == [19] and "10%" in said[19]
    assert WinnerDrop().watch({"loss": 1.0}) is None, "nothing to compare with"
