"""Inverting a whole update together, several timesteps a walk, and no waiting: the same estimator, cheaper."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smpo.components.inversions import DDIMInversion, NoInversion, ReNoise
from smpo.components.objectives import DiffusionDPO, DiffusionKTO, InversionDPO, SmPO
from smpo.engine.forward_batches import ForwardBatches, portioned
from smpo.engine.inversion_batches import joined, parts, windows
from smpo.engine.loop import fit
from smpo.engine.monitoring.metrics import Meter
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.engine.step import invert_batch
from smpo.maths.draws import PositionDraws, stratified
from smpo.maths.hops import InversionConfig
from tests.engine.toys import ROUNDING, Quiet, moved, toy_batches, toy_session


def weights(session) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in session.parameters])


def counted(session) -> list[int]:
    """Sizes of the passes without gradients that are asked of the policy."""
    asked, predict = [], session.denoiser.predict

    def watched(x, t, cond, *, reference=False, inverting=False):
        if not reference and not torch.is_grad_enabled():
            asked.append(len(x))
        return predict(x, t, cond, reference=reference)

    session.denoiser.predict = watched
    return asked


@pytest.mark.parametrize(
    ("objective", "single"), [(SmPO(beta=50), False), (InversionDPO(levels=3), False), (DiffusionKTO(), True)]
)
@pytest.mark.parametrize("window", [None, 1, 6])
@pytest.mark.parametrize("passes", [ForwardBatches(), ForwardBatches(5), ForwardBatches(7, even=True)])
def test_windows_and_portions_do_not_change_the_result(objective, single, window, passes):
    """From a policy that has moved: Inversion-DPO's loss has no gradient at the reference, only rounding."""
    whole, other = (moved(toy_session(objective, ReNoise(steps=4), micro=m, exact=True)) for m in (8, 2))
    other.window, other.settings = window, replace(other.settings, passes=passes)
    one, two = list(fit(whole)), list(fit(other))
    torch.testing.assert_close(weights(whole), weights(other), rtol=0, atol=ROUNDING)
    assert one[-1].metrics["passes"] == two[-1].metrics["passes"], "padding is nobody's pass"


def test_a_window_fills_its_passes():
    """One pair at a time, a pass holds 2 images and most are wasted on those that have arrived; together, all but the
    last pass of a hop are full."""
    alone, together = (toy_session(SmPO(beta=50), ReNoise(steps=10), steps=1, batch=32, micro=2) for _ in range(2))
    alone.window = 2
    few, many = counted(together), counted(alone)
    list(fit(alone)), list(fit(together))
    assert sum(few) == sum(many), "the same images are asked about"
    hops = 11
    assert len(few) <= -(-sum(few) // 4) + 2 * hops, "at most one pass in a hop and evaluation isn't full"
    assert len(few) < 0.85 * len(many)


def test_joining_and_parting_keep_the_order():
    batches = list(toy_batches(6, 2, single=True, empty=True)(0))
    whole = joined(batches)
    assert whole.ids == [f"pair-{i}" for i in range(6)] and whole.unconditional is not None
    assert [len(w) for w in windows(batches, 5)] == [4, 2] and len(list(windows(batches, None))) == 1
    session = toy_session(DiffusionDPO(), NoInversion(), micro=2)
    noisy = invert_batch(
        whole,
        session.draws(whole.position),
        denoiser=session.denoiser,
        inversion=NoInversion(),
        objective=DiffusionDPO(),
        settings=replace(session.settings, posterior=False),
    )
    for batch, part in zip(batches, parts(noisy, 2), strict=True):
        assert part.batch.ids == batch.ids and torch.equal(part.x0, batch.mean)
        assert torch.equal(part.conditioning.tensors["c"], batch.conditioning.tensors["c"])
        assert torch.equal(part.batch.desirable, batch.desirable)


def test_portions_see_every_row_once_and_padding_is_cut_off():
    sizes = []

    def predict(x, t, rows):
        sizes.append(len(x))
        assert torch.equal(rows, t), "rows travel with their samples"
        return 2 * x

    x, rows = torch.arange(7.0)[:, None], torch.arange(7)
    assert torch.equal(portioned(predict, ForwardBatches(3))(x, rows, rows), 2 * x) and sizes == [3, 3, 1]
    sizes.clear()
    assert torch.equal(portioned(predict, ForwardBatches(3, even=True))(x, rows, rows), 2 * x) and sizes == [
        3,
        3,
        3,
    ]


# ------------------------------------------------------------------------------------ several timesteps a walk


def test_each_timestep_of_a_walk_finds_what_it_would_find_alone():
    session = toy_session(SmPO(beta=50), ReNoise(steps=6))
    batch = next(iter(session.batches(0)))
    about = {"denoiser": session.denoiser, "inversion": session.inversion, "objective": session.objective}
    settings = replace(session.settings, timesteps=3)
    together = invert_batch(batch, session.draws(batch.position), settings=settings, **about)
    t = together.t.reshape(2, 3, 8)
    assert torch.equal(t[0], t[1]) and torch.equal(t[0] // 334, torch.arange(3)[:, None].expand(3, 8))
    assert len(together.batch) == 24 and together.levels == 1
    from smpo.maths.inversion import invert

    def policy(x, t, rows):
        return session.denoiser.predict(x, t, together.conditioning.take(rows))

    alone = invert(together.x0, together.t, policy, session.denoiser.schedule, InversionConfig(steps=6))
    torch.testing.assert_close(together.x_t, alone.x_t)
    assert together.passes < 0.7 * alone.passes / len(alone.x_t)


def test_a_walk_with_many_timesteps_has_the_expected_gradient_of_many_walks():
    """With as many strata as timesteps every level is visited, whatever is drawn: a mean without variance."""

    def gradient(timesteps: int, seed: int) -> torch.Tensor:
        session = moved(toy_session(SmPO(beta=5), ReNoise(steps=3), seed=seed, exact=True))
        session.settings = StepConfig(
            seed=seed, t_min=100, t_max=107, posterior=False, timesteps=timesteps, strata=None
        )
        caught = {}

        def step(closure=None):
            caught["grad"] = torch.cat([p.grad.flatten().clone() for p in session.parameters])

        session.optimiser.step, session.clip = step, None
        next(iter(fit(session)))
        return caught["grad"]

    exact = gradient(8, 0)
    torch.testing.assert_close(gradient(8, 1), exact, rtol=0, atol=ROUNDING)
    mean = torch.stack([gradient(1, seed) for seed in range(60)]).mean(0)
    halves = torch.stack([gradient(2, seed) for seed in range(30)]).mean(0)
    for estimate in (mean, halves):
        assert (estimate - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("inversion", [NoInversion(), DDIMInversion(steps=4, extra_noise=0.1), ReNoise(steps=4)])
@pytest.mark.parametrize("objective", [SmPO(beta=50), InversionDPO(levels=2), DiffusionKTO(beta=50)])
def test_several_timesteps_train_like_any_other(objective, inversion):
    whole, other = (moved(toy_session(objective, inversion, micro=m, exact=True)) for m in (8, 2))
    start = toy_session(objective, inversion, exact=True)
    for session in (whole, other, start):
        session.settings = replace(session.settings, timesteps=3)
    one, two = list(fit(whole)), list(fit(other))
    torch.testing.assert_close(weights(whole), weights(other), rtol=0, atol=ROUNDING)
    if objective.at_reference is not None:
        first = next(iter(fit(start)))
        assert first.metrics["loss"] == pytest.approx(objective.at_reference, abs=1e-6)
    assert one[-1].timesteps_per_pair == 3 and one[-1].pairs == 8
    assert two[-1].metrics["t"] == pytest.approx(one[-1].metrics["t"], rel=1e-5)


def test_strata_spread_an_update_evenly_and_leave_each_sample_uniform():
    u = PositionDraws(0, range(6400)).uniform("timestep")
    spread = stratified(u, range(6400), 0, 16, "timestep")
    for update in spread.reshape(-1, 16):
        assert (update * 16).long().sort().values.tolist() == list(range(16))
    first = spread.reshape(-1, 16)[:, 0]  # 400 draws of the same place in its update
    assert abs(float(first.mean()) - 0.5) < 4 * (1 / 12 / 400) ** 0.5
    some = [3, 77, 5000]
    assert torch.equal(stratified(u[some], some, 0, 16, "timestep"), spread[some]), "a sample's alone"


# ------------------------------------------------------------------------------------------------ no waiting


class _Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a number asked for, a shape that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta(session) -> Iterator[None]:
    """Everything but positions on the meta device, where tensors have no values: whoever asks for one is stopped."""
    meta = torch.device("meta")
    session.denoiser.policy.to(meta), session.denoiser.reference.to(meta)
    session.denoiser.device, session.denoiser.schedule = meta, session.denoiser.schedule.to(meta)
    batches, objective = session.batches, session.objective

    def moved(step):
        for batch in batches(step):
            yield replace(
                batch,
                mean=batch.mean.to(meta),
                std=batch.std.to(meta),
                p=batch.p.to(meta),
                conditioning=batch.conditioning.to(meta),
                unconditional=None if batch.unconditional is None else batch.unconditional.to(meta),
                desirable=None if batch.desirable is None else batch.desirable.to(meta),
            )

    session.batches = moved
    session.draws = lambda position: PositionDraws(0, position, meta)
    session.objective = Quiet(objective)  # the first update may look whether policy and reference agree
    yield


@pytest.mark.parametrize("inversion", [NoInversion(), ReNoise(steps=4), ReNoise(steps=4, guidance=2.0)])
@pytest.mark.parametrize("objective", [SmPO(beta=50), InversionDPO(levels=2), DiffusionKTO(beta=50)])
def test_an_update_asks_its_device_for_nothing_until_it_settles(objective, inversion, monkeypatch):
    session = toy_session(objective, inversion, steps=1, micro=2)
    session.settings = replace(session.settings, timesteps=2)
    session.optimiser = torch.optim.SGD(session.denoiser.policy.parameters(), lr=0.1, foreach=False)
    settled = []

    def settle(self, step, norm, *, scale=None):
        assert norm.device.type == "meta"
        settled.append(self.pairs)
        return {"grad_norm": 1.0}

    monkeypatch.setattr(Meter, "settle", settle)
    with on_meta(session):
        session.optimiser.param_groups[0]["params"] = list(session.denoiser.policy.parameters())
        list(fit(session))
    assert settled == [16]


def test_settling_is_the_only_waiting_and_happens_once():
    session = toy_session(SmPO(beta=50), ReNoise(steps=4), steps=3, micro=1)
    session.optimiser = torch.optim.SGD(session.parameters, lr=0.1)
    updates = fit(session)
    next(updates)  # the first also checks that policy and reference agree
    with _Waits() as waits:
        next(updates)
    assert waits.seen.count("_local_scalar_dense") == 0 and "nonzero" not in waits.seen


@pytest.mark.parametrize("micro", [8, 3])
def test_what_the_reference_said_is_remembered_micro_batch_by_micro_batch(micro: int) -> None:
    """Write-through, equal to the last bit, and never asked again."""

    class Memory(dict):
        put = dict.__setitem__

    class Named:
        """An inversion that names what it found."""

        def __init__(self, inner):
            self.inner = inner

        def __call__(self, x0, t, predict, schedule, draws):
            return self.inner(x0, t, predict, schedule, draws)._replace(key=f"{draws.positions}")

    def trained(memory):
        walk = ReNoise(steps=3, by="reference")
        session = toy_session(SmPO(beta=10.0), walk, steps=3, micro=micro)
        session.inversion = Named(walk)
        session.reference_cache, asked, exact = memory, [], session.denoiser.predict

        def predict(x, t, cond, *, reference=False, inverting=False):
            asked.extend([reference] * len(x))
            return exact(x, t, cond, reference=reference)

        session.denoiser.predict = predict
        shares = [report.metrics.get("reference_passes") for report in fit(session)]
        return session.denoiser.policy.state_dict(), shares, sum(asked)

    memory = Memory()
    plain, none, often = trained(None)
    first, whole, same = trained(memory)
    again, nothing, less = trained(memory)
    for name, weight in plain.items():
        assert torch.equal(weight, first[name]) and torch.equal(weight, again[name])
    assert (none, whole, nothing) == ([None] * 3, [1.0] * 3, [0.0] * 3)
    assert often == same == less + 3 * 16 and len(memory) == 3 * -(-8 // micro)
