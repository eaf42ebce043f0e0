"""Rectified flow (SD3, FLUX): straight paths from image to noise, their inversion and their targets.

    x_σ = (1-σ) x0 + σ ε,   dx/dσ = v,   v = ε - x0          σ in [0, 1]

An extension of ours: neither the SmPO paper nor its code covers flow models (method reference 8). σ is a
float tensor [N]; a network that counts time in 0..1000 is scaled by the caller.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from smpo.maths.hops import Combine
from smpo.maths.inversion import Noised, Predict
from smpo.maths.renoise import iterate_weights, renoise
from smpo.maths.schedule import widen


def interpolate(x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x_σ = (1-σ) x0 + σ ε."""
    s = _per_sample(sigma, x0)
    return (1 - s) * x0 + s * eps


def velocity_target(x0: Tensor, eps: Tensor) -> Tensor:
    """v = ε - x0, what the network should output anywhere on the straight path."""
    return eps - x0


def epsilon(velocity: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """ε̂ = x_σ + (1-σ) v̂."""
    return x + (1 - _per_sample(sigma, x)) * velocity


def clean(velocity: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """x̂0 = x_σ - σ v̂."""
    return x - _per_sample(sigma, x) * velocity


def shift_levels(levels: Tensor, shift: float) -> Tensor:
    """σ' = sσ/(1 + (s-1)σ): more of the grid at high noise. SD3 uses s = 3, FLUX one by resolution."""
    return shift * levels / (1 + (shift - 1) * levels)


def inverted_velocity(x0: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """v_τ = (x̃_σ - x0)/σ, the constant velocity that explains an inverted latent. Keep σ away from 0."""
    x0, x = widen(x0), widen(x)
    return (x - x0) / _per_sample(sigma, x)


def invert_flow(
    x0: Tensor,
    sigma: Tensor,
    predict: Predict,
    *,
    levels: Sequence[float],
    refinements: int = 1,
    combine: Combine = "average",
    weights: Sequence[float] | None = None,
    time: Literal["target", "source"] = "target",
) -> Noised:
    """Follow dx/dσ = v(x, σ) from the clean latent up to each sample's σ, without gradients.

    Hops x ← x + (b-a) v̄ between the `levels` (ascending, from 0) below σ and then to σ itself. With
    ReNoise v_0 = v(x, b), v_k = v(x + (b-a) v_{k-1}, b). `time="source"` evaluates v at a instead: with no
    refinement that is explicit Euler. Returns x̃_σ and τ = (x̃_σ - (1-σ) x0)/σ. Exclude σ near 0, where τ
    isn't defined. Raises ValueError unless the levels ascend from 0 and stay below or at 1.
    """
    stops = [float(s) for s in levels]
    ascending = all(a < b for a, b in pairwise(stops))
    if not stops or stops[0] != 0 or stops[-1] > 1 or not ascending:
        raise ValueError(f"levels must ascend from 0 to at most 1; got {stops}.")
    w = iterate_weights(refinements, combine, weights)
    x0 = x0.detach()
    s = sigma.to(torch.promote_types(sigma.dtype, widen(x0).dtype))
    order = torch.argsort(s, descending=True, stable=True)
    goal = s[order]
    bound_for = goal.tolist()
    x = widen(x0)[order]
    passes = 0
    with torch.no_grad():
        for a, b in zip(stops, [*stops[1:], 1.0], strict=True):
            n = sum(g > a for g in bound_for)
            if n == 0:
                break
            here, there = goal.new_full((n,), a), goal[:n].clamp(max=b)
            told = there if time == "target" else here
            x = torch.cat([_hop(predict, x[:n], told, there - here, order[:n], w, x0.dtype), x[n:]])
            passes += len(w) * n
    x = x[torch.argsort(order)]
    level = _per_sample(sigma, x)
    return Noised(x, (x - (1 - level) * widen(x0)) / level, passes)


def _hop(
    predict: Predict,
    x: Tensor,
    time: Tensor,
    length: Tensor,
    rows: Tensor,
    weights: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    def evaluate(point: Tensor) -> Tensor:
        return predict(point.to(dtype), time, rows).to(point.dtype)

    def hop(velocity: Tensor) -> Tensor:
        return x + _per_sample(length, x) * velocity

    return hop(renoise(x, evaluate, hop, weights)[0])


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
