"""Randomness that belongs to a sample: who is drawn beside it, and when, makes no difference."""

import pytest
import torch

from smpo.maths.draws import PositionDraws, random_bits, row_key


def test_a_row_depends_on_its_own_position() -> None:
    together = PositionDraws(3, [5, 6, 7]).normal("noise", (4, 2, 2))
    apart = torch.cat([PositionDraws(3, [i]).normal("noise", (4, 2, 2)) for i in (5, 6, 7)])
    assert torch.equal(together, apart)
    assert torch.equal(PositionDraws(3, torch.tensor([7, 5])).uniform("t")[1:], PositionDraws(3, [5]).uniform("t"))


def test_streams_seeds_and_positions_differ() -> None:
    draws = [
        PositionDraws(seed, [position]).normal(name, (50,))
        for seed in (0, 1)
        for name in ("a", "b")
        for position in (0, 1, 2**32)  # one torch.Generator a row would give 0 and 2**32 the same noise
    ]
    values = torch.cat(draws)
    assert len(values.flatten().unique()) == values.numel()


def test_moments_and_independence() -> None:
    z = PositionDraws(0, range(200)).normal("noise", (501,)).double()
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.015
    assert abs((z**4).mean() - 3) < 0.1 and abs((z**3).mean()) < 0.05
    neighbours = (z[:, 1:] * z[:, :-1]).mean(), (z[1:] * z[:-1]).mean(), (z[:, :250] * z[:, 251:]).mean()
    assert max(abs(value) for value in neighbours) < 0.02


def test_uniform_fills_its_range() -> None:
    u = PositionDraws(1, range(5000)).uniform("timestep")
    assert u.dtype == torch.float64 and u.min() >= 0 and u.max() < 1
    counts = torch.histc(u, bins=20, min=0, max=1)
    assert ((counts - 250) ** 2 / 250).sum() < 50  # chi-square, 19 degrees of freedom: 43.8 at one in a thousand


def test_every_bit_is_fair() -> None:
    bits = random_bits([row_key(0, "x", i) for i in range(64)], 256)
    for place in range(64):
        ones = ((bits >> place) & 1).double().mean()
        assert abs(ones - 0.5) < 0.02, f"bit {place}"


def test_bits_are_those_of_the_published_mixer() -> None:
    """SplitMix64 in Python's unbounded integers."""
    mask = (1 << 64) - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    assert mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first output of SplitMix64 with seed 0
    first, second = (word & mask for word in row_key(0, "noise", 1))
    expected = [mix(mix((first + k * 0x9E3779B97F4A7C15) & mask) ^ second) for k in range(5)]
    assert [bits & mask for bits in random_bits([row_key(0, "noise", 1)], 5)[0].tolist()] == expected


def test_the_stream_is_pinned() -> None:
    """A change here changes every run: it needs a line under "changes your results" in the changelog."""
    assert row_key(0, "noise", 1) == (-8692683054666204672, 3263931280701461562)
    assert random_bits([row_key(0, "noise", 1)], 2)[0].tolist() == [7278882007331240197, 8470542619677895097]


@pytest.mark.gpu
def test_a_gpu_draws_the_same_numbers() -> None:
    here, there = (PositionDraws(3, range(64), device).normal("noise", (4, 33)) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)
