"""ReNoise: estimate the direction of a hop at the hop's end, although the end isn't known yet.

Inverting a sampler step is an implicit equation, because the network's input is the point that is to
be found. Garibi et al. (ECCV 2024) iterate, always restarting from the old point x:

    e_0 = e(x),   e_k = e(hop(x, e_{k-1})),  k = 1 .. K;        direction = Σ w_k e_k,   Σ w_k = 1

Averaging directions is averaging iterates, since a hop is affine in its direction. SmPO uses K = 1 and equal
weights at every hop; Garibi's full method also regularises the noise and averages late iterates only, which
is left out as it is in SmPO.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from smpo.maths.hops import Combine, forwards_per_hop


def iterate_weights(refinements: int, combine: Combine, weights: Sequence[float] | None = None) -> tuple[float, ...]:
    """Weights w_0 .. w_K: how K+1 predictions become one direction.

    average   all equal, 1/(K+1); SmPO with K = 1
    last      only e_K; Garibi et al. without averaging
    none      K = 0 for any `refinements`: plain DDIM inversion

    `weights` overrides average and last. Raises ValueError unless it holds K+1 numbers that sum to one.
    """
    n = forwards_per_hop(refinements, combine)
    if weights is not None:
        if len(weights) != n or abs(sum(weights) - 1) > 1e-6:
            raise ValueError(f"weights must be {n} numbers that sum to 1, one per prediction; got {weights}.")
        return tuple(weights)
    if combine == "last":
        return (0.0,) * (n - 1) + (1.0,)
    if combine in ("average", "none"):
        return (1.0 / n,) * n
    raise ValueError(f"unknown combine {combine!r}; choose average, last or none.")


def renoise(
    x: Tensor,
    evaluate: Callable[[Tensor], Tensor],
    hop: Callable[[Tensor], Tensor],
    weights: Sequence[float],
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The direction Σ w_k e_k of one hop from x, for noises and velocities alike, and its last evaluation e_K.

    `evaluate(point)` is the network at the hop's time; `hop(direction)` moves x, not the last guess.
    One evaluation per weight; `first` is taken for e_0 where it is given, and saves one. It is the last
    evaluation of the hop before, near x but not at it, and at that hop's time: an approximation, to which the
    refinements that follow are less sensitive than to their own point.
    """
    direction = evaluate(x) if first is None else first
    total = weights[0] * direction
    for w in weights[1:]:
        direction = evaluate(hop(direction))
        total = total + w * direction
    return total, direction
