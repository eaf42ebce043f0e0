"""The training loop: what it starts from, what it must not depend on, and how it stops."""

import math

import pytest
import torch

from smpo.components.inversions import DDIMInversion, NoInversion, ReNoise
from smpo.components.objectives import ConservativeDPO, DiffusionDPO, SmPO, SupervisedFineTuning
from smpo.engine.alarms import NonFiniteLoss, RunawayInversion
from smpo.engine.loop import fit
from smpo.engine.rates import LearningRate
from smpo.errors import RunError
from tests.engine.toys import toy_session

INVERSIONS = [
    NoInversion(),
    NoInversion(shared=False),
    DDIMInversion(steps=4),
    ReNoise(steps=4, by="reference"),
]
OBJECTIVES = [SmPO(beta=50), DiffusionDPO(beta=50), ConservativeDPO(beta=50), SupervisedFineTuning()]


def weights(session) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in session.parameters])


@pytest.mark.parametrize("inversion", INVERSIONS, ids=lambda i: f"{i.use}")
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.use)
def test_first_loss_is_known_and_training_moves_the_policy_only(objective, inversion):
    session = toy_session(objective, inversion)
    before, reference = weights(session).clone(), [p.clone() for p in session.denoiser.reference.parameters()]
    reports = list(fit(session))
    if objective.at_reference is not None:
        assert reports[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert reports[0].metrics["margin"] == pytest.approx(0, abs=1e-6)
        assert reports[0].metrics["implicit_accuracy"] == 0.5, "a margin of zero is half right"
    assert not torch.equal(before, weights(session))
    assert all(
        torch.equal(a, b) for a, b in zip(reference, session.denoiser.reference.parameters(), strict=True)
    )
    assert [r.step for r in reports] == [1, 2, 3, 4, 5]


def test_training_raises_the_margin():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4, by="reference"), steps=40, p=0.9, lr=3e-3)
    reports = list(fit(session))
    assert reports[-1].metrics["margin"] > 0.1
    assert reports[-1].metrics["implicit_accuracy"] > 0.8


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_do_not_change_the_result(micro):
    whole, parts = (toy_session(SmPO(beta=50), ReNoise(steps=4), micro=m) for m in (8, micro))
    one, other = list(fit(whole)), list(fit(parts))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-4, atol=1e-6)
    assert one[-1].metrics["tau_squared"] == pytest.approx(other[-1].metrics["tau_squared"], rel=1e-4)


def test_doubtful_pairs_teach_nothing():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4), p=0.5)
    report = next(iter(fit(session)))
    assert report.metrics["grad_norm"] == 0


def test_stopping_and_going_on_is_the_same_as_never_stopping(tmp_path):
    from smpo.engine.checkpoint import restore, save

    def named(session):
        return dict(session.denoiser.policy.named_parameters())

    straight = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    list(fit(straight))

    first = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    for report in fit(first):
        if report.step == 3:
            save(tmp_path, 3, named(first), first.optimiser, first.average, spec_hash="x", keep=2)
            break
    second = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=6, ema=0.9)
    start = restore(tmp_path, named(second), second.optimiser, second.average, say=pytest.fail)
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


def test_runaway_alarm_speaks_once_and_not_about_health():
    alarm = RunawayInversion()
    assert all(alarm.watch(1.0 + 0.1 * (k % 3)) is None for k in range(30))
    assert "running away" in (alarm.watch(9.0) or "")
    assert alarm.watch(500.0) is None
    assert RunawayInversion().watch(450.0) is not None, "also from the very first update"
