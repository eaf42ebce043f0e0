"""rho against gradients whose correlation is known, and against sums of gradients that were really formed."""

import pytest
import torch

from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO
from smpo.engine.gradient_correlation import gain, gradient_correlation, gradients
from tests.engine.toys import ROUNDING, toy_session


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_a_known_correlation_is_found(rho: float) -> None:
    """g = mu + sqrt(rho) a_pair + sqrt(1 - rho) e: correlation rho whatever mu is."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mu = 2 * drawn(50)
    pairs = [[mu + rho**0.5 * a + (1 - rho) ** 0.5 * drawn(50) for _ in range(3)] for a in drawn(400, 50)]
    found = gradient_correlation(iter(pairs))
    assert found.rho == pytest.approx(rho, abs=0.03) and found.low <= found.rho <= found.high
    assert found.high - found.low < 0.1
    assert found.signal == pytest.approx(float(mu.square().sum() / (mu.square().sum() + 50)), abs=0.02)


def test_gradients_are_those_of_training() -> None:
    """Summed over pairs and timesteps they are the gradient of an update, up to its mean."""
    session = toy_session(SmPO(beta=50), ReNoise(steps=4), batch=8, micro=4, exact=True)
    each = list(gradients(session, 3))
    assert len(each) == 8 and all(len(one) == 3 for one in each)
    from smpo.engine.loop import fit

    session.settings = type(session.settings)(seed=0, t_min=0, t_max=999, posterior=True, timesteps=3)
    caught: list[torch.Tensor] = []
    session.optimiser.step = lambda closure=None: caught.append(  # type: ignore[method-assign]
        torch.cat([p.grad.flatten().clone() for p in session.parameters])
    )
    session.clip = None
    next(iter(fit(session)))
    torch.testing.assert_close(
        torch.stack([g for one in each for g in one]).mean(0), caught[0], rtol=0, atol=ROUNDING
    )


def test_one_pair_tells_nothing() -> None:
    with pytest.raises(ValueError, match="two pairs"):
        gradient_correlation(iter([[torch.ones(2), torch.ones(2)]]))


def test_the_gain_is_the_one_of_the_table() -> None:
    """performance.md 3.3, SDXL since 0.22: at rho 0.05 eight timesteps give 1.75, at 0.35 nothing pays."""
    cost = {1: 29.9, 2: 22.3, 4: 16.4, 8: 12.7}
    assert gain(0.05, 8, cost[8], cost[1]) == pytest.approx(1.75, abs=0.01)
    assert max(gain(0.35, m, cost[m], cost[1]) for m in cost) == pytest.approx(1.0)
