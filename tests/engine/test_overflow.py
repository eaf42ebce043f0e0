"""Gradients that overflow under a loss scale: the update is repeated with a smaller one, counted, and bounded."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from smpo.components.inversions import ReNoise
from smpo.components.objectives import DiffusionKTO, SmPO
from smpo.engine.checkpoints.checkpoint import restore
from smpo.engine.checkpoints.train_state import TrainState
from smpo.engine.loop import Session, fit
from smpo.engine.monitoring.alerts import NonFiniteLoss
from smpo.engine.overflow import Attempt, Overflows
from tests.engine.states import save
from tests.engine.toys import toy_session

STEPS = 6
LARGEST = 65504.0
"""Of fp16."""


def overflowing(made: Session, *, limit: float = LARGEST, at: set[int] | None = None) -> Session:
    """Gradients beyond `limit` become infinite, as those of fp16 do; in the updates `at` (from 0), else in all."""
    now = [0]
    batches = made.batches

    def counted(step: int):
        now[0] = step
        return batches(step)

    def hook(grad: torch.Tensor) -> torch.Tensor:
        if at is not None and now[0] not in at:
            return grad
        return torch.where(grad.abs() > limit, math.inf, grad)

    made.batches = counted
    for parameter in made.parameters:
        parameter.register_hook(hook)
    return made


def session(scale: float | None = 65536.0, *, objective=None, inversion=None, growth: int = 2000, **more) -> Session:
    made = toy_session(objective or SmPO(beta=50), inversion or ReNoise(steps=3), steps=STEPS, micro=4, **more)
    if scale is not None:
        made.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth)
    return made


def state(made: Session) -> TrainState:
    named = dict(made.denoiser.policy.named_parameters())
    return TrainState(named, made.optimiser, made.average, made.scaler, made.overflows)


def weights(made: Session) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.denoiser.policy.parameters()])


SEEN = ("loss", "t", "tau_squared", "p", "lr")
"""What tells which pairs an update saw, with which noise and at which rate."""


@pytest.mark.parametrize("objective", [SmPO(beta=50), DiffusionKTO(beta=50)], ids=["smpo", "kto"])
@pytest.mark.parametrize("planted", [{0}, {0, 3}, {2, 3}], ids=str)
def test_overflow_changes_neither_pairs_nor_rate_nor_result(objective, planted):
    """Powers of two round nothing here: bit for bit the result of a run whose gradients never overflowed."""
    straight = session(None, objective=objective, ema=0.9)
    expected = [report.metrics for report in fit(straight)]
    made = overflowing(session(objective=objective, ema=0.9), limit=20.0, at=planted)
    reports = list(fit(made))
    assert [report.step for report in reports] == list(range(1, STEPS + 1)), "each update is applied, once"
    for report, metrics in zip(reports, expected, strict=True):
        assert {name: report.metrics[name] for name in SEEN} == {name: metrics[name] for name in SEEN}
        assert math.isfinite(report.metrics["grad_norm"])
    assert torch.equal(weights(made), weights(straight))
    for name, tensor in straight.average.shadow.items():
        assert torch.equal(made.average.shadow[name], tensor), "the average counts applied updates only"
    first = min(planted)
    assert made.scaler.state_dict()["_growth_tracker"] == STEPS - first, "finite updates since the overflow"
    assert [bool(report.skipped) for report in reports] == [step == first for step in range(STEPS)], (
        "the scale that the first planted update has found holds for the next"
    )


def test_counts_and_scale_are_reported_from_the_first_update():
    """The k-th overflow in a row divides the scale by 2^k."""
    made = session(2.0**16)
    made = overflowing(made, limit=10.0, at={0})
    reports = list(fit(made))
    scale = reports[0].metrics["loss_scale"]
    tries = reports[0].skipped
    assert scale == 2.0 ** (16 - sum(range(1, tries + 1))) and tries > 1
    for report in reports:
        assert report.metrics["loss_scale"] == scale
        assert report.metrics["skipped_updates"] == tries
        assert report.metrics["skipped_share"] == pytest.approx(tries / (tries + report.step))
    assert (made.overflows.applied, made.overflows.skipped) == (STEPS, tries)
    assert made.scaler.state_dict()["_growth_tracker"] == STEPS


def test_the_scale_grows_again_and_falls_by_half():
    """What torch's scaler does in the steady state: a doubled scale that overflows is halved."""
    reports = list(fit(overflowing(session(2.0**10, growth=1), limit=50.0)))
    scales, skipped = [report.metrics["loss_scale"] for report in reports], [one.skipped for one in reports]
    assert 0 in skipped[1:] and 1 in skipped[1:]
    for number in range(1, STEPS):
        tries = skipped[number]
        assert scales[number] == 2 * scales[number - 1] * 0.5 ** (tries * (tries + 1) // 2)


@pytest.mark.parametrize("limit", [0.0, -1.0], ids=["never finite", "infinite whatever they are"])
def test_a_run_that_always_overflows_stops_with_the_cause_and_the_way_out(limit):
    made = overflowing(session(), limit=limit)
    before, attempts = weights(made).clone(), []
    batches = made.batches
    made.batches = lambda step: (attempts.append(step), batches(step))[1]
    with pytest.raises(NonFiniteLoss) as caught:
        list(fit(made))
    message = f"{caught.value} {caught.value.help}"
    for words in ("update 1 stopped", "fp16", "every loss scale (65536 down to 2)", "precision=bf16", "beta"):
        assert words in message, words
    assert attempts == [0] * 6 and torch.equal(weights(made), before)
    assert caught.value.suspects and made.applied == 0
    made.discard_gradients()
    assert made.scaler.get_scale() == 65536.0, "for whoever goes on without this update"
    assert made.overflows == Overflows()


def test_an_update_that_always_overflows_can_be_left_out():
    """`on_nan: skip`: the scale of the updates after it isn't that of the last attempt."""
    made = overflowing(session(2.0**10), limit=0.0, at={2})
    reports = []
    with pytest.raises(NonFiniteLoss, match="update 3 stopped"):
        reports.extend(fit(made))
    made.discard_gradients()
    made.skipped = {2}
    reports = list(fit(made, 2))
    assert [report.step for report in reports] == [4, 5, 6]
    assert all(report.metrics["loss_scale"] == 2.0**10 and not report.skipped for report in reports)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_stopping_between_overflows_changes_no_bit(tmp_path, stop):
    """Overflows at the first, third and fifth update, since the scale doubles after each finite one."""

    def make() -> Session:
        return overflowing(session(2.0**16, growth=1, ema=0.9), limit=50.0, at={0, 2, 4})

    straight = make()
    expected = [report.metrics for report in fit(straight)]
    assert straight.overflows.skipped >= 3
    first, seen = make(), []
    for report in fit(first):
        seen.append(report.metrics)
        if report.step == stop:
            save(tmp_path, stop, state(first), spec_hash="x", keep=1)
            break
    second = make()
    start = restore(tmp_path, state(second), say=pytest.fail).step
    seen += [report.metrics for report in fit(second, start)]
    assert seen == expected
    assert torch.equal(weights(second), weights(straight)) and second.overflows == straight.overflows
    assert second.scaler.state_dict() == straight.scaler.state_dict()


def test_stopping_in_the_middle_of_attempts_changes_no_bit(tmp_path):
    """An interrupt between two attempts leaves a checkpoint of the update before, with the scale of before."""

    def make() -> Session:
        return overflowing(session(2.0**16), limit=20.0, at={2})

    straight = make()
    list(fit(straight))
    first = make()
    batches, asked = first.batches, []

    def interrupted(step: int):
        asked.append(step)
        if asked.count(2) == 2:  # the second attempt
            raise KeyboardInterrupt
        return batches(step)

    first.batches = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(fit(first))
    assert first.applied == 2
    first.discard_gradients()
    save(tmp_path, 2, state(first), spec_hash="x", keep=1)
    second = make()
    list(fit(second, restore(tmp_path, state(second), say=pytest.fail).step))
    assert torch.equal(weights(second), weights(straight)) and second.overflows == straight.overflows
    assert second.scaler.state_dict() == straight.scaler.state_dict()


def test_checkpoints_without_counts_can_be_gone_on_from(tmp_path):
    made = session()
    earlier = TrainState(*(getattr(state(made), name) for name in ("parameters", "optimiser", "average", "scaler")))
    next(fit(made))
    save(tmp_path, 1, earlier, spec_hash="x", keep=1)
    again = session()
    assert restore(tmp_path, state(again), say=pytest.fail).step == 1
    assert again.overflows == Overflows()


def test_without_a_loss_scale_a_norm_that_is_not_finite_stops_at_once():
    made = overflowing(session(None), limit=0.0)
    with pytest.raises(NonFiniteLoss, match="update 1 stopped the run: the gradient's norm is not finite"):
        list(fit(made))
    assert "loss_scale" not in next(fit(session(None))).metrics


def planted(made: Session, where: str) -> Session:
    """One kind of number is NaN from the first update on."""
    batches = made.batches

    def poisoned(step: int):
        for batch in batches(step):
            if where == "p":
                batch.p[1] = math.nan
            if where == "tau_squared":
                batch.mean[1] = math.nan
            yield batch

    made.batches = poisoned
    predict = made.denoiser.predict

    def broken(*arguments, reference: bool = False, **more):
        out = predict(*arguments, reference=reference, **more)
        asked = torch.is_grad_enabled() and not reference
        if (where == "policy" and asked) or (where == "reference" and reference):
            out = out * math.nan
        return out

    if where == "loss":

        class Endless(SmPO):
            def __call__(self, predicted, p):
                out = super().__call__(predicted, p)
                return replace(out, loss=out.loss * math.nan)

        made.objective = Endless(beta=50)
    if where in ("policy", "reference"):
        made.denoiser.predict = broken
    return made


@pytest.mark.parametrize(
    ("where", "cause", "way_out"),
    [
        ("loss", "though noise and predictions are finite", "objective.beta"),
        ("p", "smoothed preferences `p` are not finite", "scores"),
        ("tau_squared", "latents or their inverted noise", "inversion.by=reference"),
        ("policy", "the policy's predictions are not finite", "nothing is trained yet"),
        ("reference", "the reference's predictions are not finite", "base model"),
    ],
)
def test_a_loss_that_is_nan_from_the_start_is_traced_to_its_cause(where, cause, way_out):
    """Not to a policy that differs from its reference, which is what the first update checks otherwise."""
    made = planted(session(None, inversion=ReNoise(steps=3, by="policy")), where)
    with pytest.raises(NonFiniteLoss) as caught:
        list(fit(made))
    assert cause in str(caught.value) and way_out in (caught.value.help or ""), caught.value
    assert made.applied == 0


def test_the_count_of_attempts_is_bounded_by_the_scale():
    overflows, asked = Overflows(), []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)

    def attempt(scaler: torch.amp.GradScaler) -> Attempt:
        asked.append(scaler.get_scale())
        return Attempt({"grad_norm": math.nan, "loss_scale": asked[-1]}, torch.tensor(math.nan), list)

    with pytest.raises(NonFiniteLoss):
        overflows.finite(0, partial(attempt, scaler), scaler, lambda: None)
    assert asked == [2.0**24, 2.0**23, 2.0**21, 2.0**18, 2.0**14, 2.0**9, 2.0**3]
