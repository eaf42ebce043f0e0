"""What an inversion promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smpo.kinds import Inversion, Predictors
from smpo.maths.draws import PositionDraws
from smpo.maths.schedule import NoiseSchedule
from smpo.testing.component import ComponentContract

__all__ = ["InversionContract"]


class _Network:
    """Returns `gain * x`, and counts its rows."""

    def __init__(self, gain: float) -> None:
        self.gain, self.rows = gain, 0

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        assert len(x) == len(t) == len(rows)
        self.rows += len(x)
        return self.gain * x


def _predictors(networks: dict[str, _Network]) -> Predictors:
    return Predictors(networks["policy"], networks["reference"], networks["policy_empty"], networks["reference_empty"])


class InversionContract(ComponentContract):
    """A noisy latent and the noise in it, at the price that was announced."""

    explains_exactly = True
    """Set it to False for reproductions of codes whose latent lies at another level than t."""

    @pytest.fixture
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.scaled_linear()

    @pytest.fixture
    def networks(self) -> dict[str, _Network]:
        gains = {"policy": 0.3, "reference": 0.2, "policy_empty": 0.25, "reference_empty": 0.15}
        return {name: _Network(gain) for name, gain in gains.items()}

    @pytest.fixture
    def latents(self) -> Tensor:
        """`[2 * 30, 1, 2, 2]` in float64."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(60, 1, 2, 2, generator=generator, dtype=torch.float64)

    def test_the_noise_explains_the_latent(
        self, component: Inversion, schedule: NoiseSchedule, networks: dict[str, _Network], latents: Tensor
    ) -> None:
        t = torch.arange(10, 1000, 33).repeat(2)
        noised = component(latents, t, _predictors(networks), schedule, PositionDraws(0, range(30)))
        assert noised.x_t.shape == noised.noise.shape == latents.shape
        assert bool(noised.x_t.isfinite().all())
        if self.explains_exactly:
            expected = schedule.add_noise(latents, noised.noise, t)
            torch.testing.assert_close(noised.x_t, expected, rtol=0, atol=1e-7)

    def test_it_costs_what_it_says(
        self, component: Inversion, schedule: NoiseSchedule, networks: dict[str, _Network]
    ) -> None:
        """`smpo plan` multiplies by `expected_passes`, and the ledger counts `passes`."""
        every = torch.arange(40, 980)
        noised = component(
            torch.zeros(2 * len(every), 1, 1, 1),
            every.repeat(2),
            _predictors(networks),
            schedule,
            PositionDraws(0, range(len(every))),
        )
        paid = sum(network.rows for network in networks.values())
        assert noised.passes == paid
        assert paid / (2 * len(every)) == pytest.approx(component.expected_passes(1000, 40, 979))

    def test_it_asks_only_the_networks_that_it_names(
        self, component: Inversion, schedule: NoiseSchedule, networks: dict[str, _Network], latents: Tensor
    ) -> None:
        t = torch.full((60,), 700)
        component(latents, t, _predictors(networks), schedule, PositionDraws(0, range(30)))
        used = {name for name, network in networks.items() if network.rows}
        assert component.needs_reference == bool(used & {"reference", "reference_empty"})
        assert component.needs_unconditional == bool(used & {"policy_empty", "reference_empty"})

    def test_a_pair_does_not_depend_on_its_company(
        self, component: Inversion, schedule: NoiseSchedule, networks: dict[str, _Network], latents: Tensor
    ) -> None:
        t = torch.tensor([1, 250, 473, 999])
        few = latents[:8]
        whole = component(few, t.repeat(2), _predictors(networks), schedule, PositionDraws(0, range(4)))
        for i in range(4):
            rows = torch.tensor([i, 4 + i])
            alone = component(few[rows], t[[i, i]], _predictors(networks), schedule, PositionDraws(0, [i]))
            torch.testing.assert_close(alone.x_t, whole.x_t[rows], rtol=0, atol=1e-9)

    def test_chance_comes_from_the_draws_alone(
        self, component: Inversion, schedule: NoiseSchedule, networks: dict[str, _Network], latents: Tensor
    ) -> None:
        """Else a resumed run would be another run."""
        t, results = torch.full((60,), 400), []
        for seed in (1, 2):
            torch.manual_seed(seed)
            noised = component(latents, t, _predictors(networks), schedule, PositionDraws(0, range(30)))
            results.append(noised.x_t)
        assert torch.equal(*results)
