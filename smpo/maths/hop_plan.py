"""Who moves in which hop of an inversion, settled on the host in plain integers.

Pure Python like `hops`, which has the itinerary; here it meets a batch. A network pass is spent on each *distinct*
move: samples that start from the same image have been at the same place until their ways part, so a hop that several of
them make is made once. The number of passes is then a matter of counting (`shared_passes`), noise-free.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from smpo.maths.hops import InversionConfig

__all__ = ["Leg", "plan_legs", "shared_passes"]


class Leg(NamedTuple):
    """One hop of a batch in which samples stand in order of descending goal.

    The first `moving` samples make it. `asked`: one sample for each distinct move, with `source` and `target` levels;
    the first `plain` of them move on afterwards and are not refined. `spread`: for each that moves, its place in
    `asked`, or None when each has a move of its own. `hop`: number in the itinerary.
    """

    hop: int
    moving: int
    asked: list[int]
    source: list[int]
    target: list[int]
    plain: int
    spread: list[int] | None


def plan_legs(goal: Sequence[int], config: InversionConfig, T: int, *, image: Sequence[int] | None = None) -> list[Leg]:
    """The legs of a batch bound for `goal`, which descends. `image`: see `smpo.maths.inversion.invert`."""
    hops, exact, last_only = config.hops(T), config.convention == "exact", config.where == "last"
    legs: list[Leg] = []
    onward = [hop.after for hop in hops[1:]] + [T]
    for number, (hop, then) in enumerate(zip(hops, onward, strict=True)):
        moving = sum(g > hop.after for g in goal)
        if moving == 0:
            break  # `after` never decreases: every sample has arrived
        places: dict[tuple[int, int, bool], int] = {}
        asked: list[int] = []
        spread: list[int] = []
        for i in range(moving):
            target = min(hop.target, goal[i]) if exact else hop.target
            moves_on = last_only and goal[i] > then
            key = (i if image is None else image[i], target, moves_on)
            if key not in places:
                places[key] = len(asked)
                asked.append(i)
            spread.append(places[key])
        source = [min(hop.source, goal[i]) if exact else hop.source for i in asked]
        target_levels = [target for _, target, _ in places]
        plain = sum(moves_on for *_, moves_on in places)
        shared = spread if len(asked) < moving else None
        legs.append(Leg(number, moving, asked, source, target_levels, plain, shared))
    return legs


def shared_passes(
    config: InversionConfig, levels: int, T: int = 1000, t_min: int = 0, t_max: int | None = None
) -> float:
    """Mean network passes for each of `levels` timesteps of one image that share a trajectory. Exact, not sampled.

    One uniform u gives all of them, t_k = t_min + floor(span (u + k) / levels); the passes change only at those u where
    one of them does. With `levels` 1 this is `smpo.maths.hops.expected_passes`.
    """
    span = (T - 1 if t_max is None else t_max) - t_min + 1
    each = config.forwards()
    # In units of 1/span: t_k = t_min + floor((v + k span) / levels) for v = u span in [0, span).
    breaks = {0, span}
    for k in range(levels):
        first = -(-k * span // levels)  # the smallest j with j levels >= k span
        breaks |= {j * levels - k * span for j in range(first, -(-(k + 1) * span // levels))}
    points = sorted(b for b in breaks if 0 <= b <= span)
    total = 0
    for low, high in pairwise(points):
        goal = sorted((t_min + (low + k * span) // levels for k in range(levels)), reverse=True)
        legs = plan_legs(goal, config, T, image=[0] * levels)
        total += (high - low) * sum(
            leg.plain + (each - (config.reuse_last and k > 0)) * (len(leg.asked) - leg.plain)
            for k, leg in enumerate(legs)
        )
    return total / span / levels
