"""Random numbers that belong to a sample of the stream, not to the moment at which they are drawn.

Every number is a pure function of (seed, stream name, position, its index), so results don't depend on how
samples are spread over processes, devices and micro-batches, and a resumed run needs no generator state. The
official code draws from global generators and cannot resume exactly (method 2b, D18, D19).

    key   = blake2b(seed, name, position)                     two 64-bit words a row
    bits  = mix(key2 ^ mix(key1 + k * golden))                k = 0, 1, 2, ...; mix is SplitMix64's finaliser
    u     = (bits >> 11) / 2^53                               uniform in [0, 1)
    z     = sqrt(-2 ln(1 - u1)) * (cos, sin)(2 pi u2)         Box-Muller

Why not one `torch.Generator` a row: on the CPU its seed is cut to 32 bits, so among the 200,000 samples of a
usual run several would share all their noise; and 256 generators cost more than a step of a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from smpo.maths.schedule import carried

__all__ = ["PositionDraws", "random_bits", "stratified"]


def _signed(word: int) -> int:
    """The same 64 bits as torch's int64 understands them."""
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


class PositionDraws:
    """The draws of a micro-batch (`smpo.kinds.Draws`).

    `positions` `[B]`: the samples' places in the stream. Integers are equal on all devices; normals may
    differ between devices in the last bit, by the device's logarithm and cosine."""

    def __init__(self, seed: int, positions: Tensor | Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.positions = _integers(positions)
        self.device = torch.device(device)

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """`[B, *shape]` standard normal, float32, on the batch's device; row i depends on sample i alone."""
        count = math.prod(shape)
        half = (count + 1) // 2
        # Apple's GPUs know no float64: there the numbers are made on the CPU and carried over.
        where = torch.device("cpu") if self.device.type == "mps" else self.device
        u = _uniform(random_bits(self._keys(name), 2 * half, where))  # [B, 2 * half]
        radius = (-2 * torch.log1p(-u[:, :half])).sqrt_()
        angle = u[:, half:] * (2 * math.pi)
        z = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]
        return z.float().reshape(len(self.positions), *shape).to(self.device)

    def uniform(self, name: str) -> Tensor:
        """`[B]` in [0, 1), float64, on the CPU."""
        return _uniform(random_bits(self._keys(name), 1, torch.device("cpu")))[:, 0]

    def _keys(self, name: str) -> list[tuple[int, int]]:
        return [row_key(self.seed, name, position) for position in self.positions]


def stratified(uniform: Tensor, positions: Tensor | Sequence[int], seed: int, strata: int, name: str) -> Tensor:
    """`[B]` uniform numbers -> (place + u) / strata, place being the position's in a permutation of its update.

    Positions k·strata .. (k+1)·strata - 1 are update k; each of them falls into another stratum, so an update's mean
    over the whole range varies less. Alone, each number is uniform on [0, 1) as before.
    """
    places: dict[int, Tensor] = {}
    found = []
    for position in _integers(positions):
        update, index = divmod(position, strata)
        if update not in places:
            words = random_bits([row_key(seed, f"{name}/strata", update)], strata)[0]
            places[update] = torch.argsort(words, stable=True)
        found.append(places[update][index])
    return (torch.stack(found).to(uniform) + uniform) / strata


def _integers(positions: Tensor | Sequence[int]) -> list[int]:
    return positions.tolist() if isinstance(positions, Tensor) else [int(one) for one in positions]


def row_key(seed: int, name: str, position: int) -> tuple[int, int]:
    """Two 64-bit words that identify one row of one stream."""
    digest = blake2b(f"{seed}/{name}/{position}".encode(), digest_size=16).digest()
    return (
        int.from_bytes(digest[:8], "little", signed=True),
        int.from_bytes(digest[8:], "little", signed=True),
    )


def random_bits(keys: Sequence[tuple[int, int]], count: int, device: torch.device | str = "cpu") -> Tensor:
    """`[len(keys), count]` int64, all 64 bits random; row i depends on `keys[i]` alone."""
    words = carried(torch.tensor(keys, dtype=torch.int64), torch.device(device)).reshape(-1, 2)
    counter = torch.arange(count, dtype=torch.int64, device=device) * _GOLDEN  # wraps, as intended
    return _mix(_mix(words[:, :1] + counter) ^ words[:, 1:])


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every bit depends on every bit."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's own drags the sign along."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _uniform(bits: Tensor) -> Tensor:
    return _shift(bits, 11).double() * 2.0**-53
