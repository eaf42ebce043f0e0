"""Who moves in which hop of an inversion, settled on the host in plain integers.

Pure Python like `counting`, which has the itinerary; here it meets a batch. A network pass is spent on each *distinct*
move: samples that start from the same image have been at the same place until their ways part, so a hop that several of
them make is made once. The number of passes is then a matter of counting (`shared_passes`), noise-free.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from smpo.maths.hops import (
    Combine,
    Convention,
    Hop,
    Spacing,
    Where,
    forwards_per_hop,
    itinerary,
)

__all__ = ["Leg", "plan_legs", "shared_passes"]


class Leg(NamedTuple):
    """One hop of a batch in which samples stand in order of descending goal.

    `movers` make it: sample numbers, or None for the first `moving`. `asked`: one sample for each distinct move,
    with `source` and `target` levels; the first `plain` of them go on afterwards and are not refined. `spread`: for
    each that moves, its place among the asked, or None when everyone moves alone. `hop`: number in the itinerary.
    """

    hop: int
    movers: list[int] | None
    moving: int
    asked: list[int]
    source: list[int]
    target: list[int]
    plain: int
    spread: list[int] | None


def plan_legs(
    goal: Sequence[int],
    hops: Sequence[Hop],
    T: int,
    *,
    image: Sequence[int] | None = None,
    exact: bool = True,
    last_only: bool = False,
    begin: Sequence[int] | None = None,
) -> list[Leg]:
    """The legs of a batch bound for `goal`, which descends. `image`: see `noising.invert`; `exact`: both ends of a
    hop are cut at the goal; `last_only`: only the hop on which a sample arrives is refined; `begin`: each sample's
    first hop, those before it being behind it already."""
    legs: list[Leg] = []
    onward = [hop.after for hop in hops[1:]] + [T]
    for number, (hop, then) in enumerate(zip(hops, onward, strict=True)):
        travelling = sum(g > hop.after for g in goal)
        if travelling == 0:
            break  # `after` never decreases, so everyone has arrived
        movers = [i for i in range(travelling) if begin is None or begin[i] <= number]
        if not movers:
            continue
        places: dict[tuple[int, int, bool], int] = {}
        asked: list[int] = []
        spread: list[int] = []
        for i in movers:
            target = min(hop.target, goal[i]) if exact else hop.target
            goes_on = last_only and goal[i] > then
            key = (i if image is None else image[i], target, goes_on)
            if key not in places:
                places[key] = len(asked)
                asked.append(i)
            spread.append(places[key])
        source = [min(hop.source, goal[i]) if exact else hop.source for i in asked]
        target_levels = [target for _, target, _ in places]
        plain = sum(goes_on for *_, goes_on in places)
        prefix = len(movers) == movers[-1] + 1
        legs.append(
            Leg(
                number, None if prefix else movers, len(movers), asked, source, target_levels, plain,
                spread if len(asked) < len(movers) else None,
            )
        )  # fmt: skip
    return legs


def shared_passes(
    levels: int,
    steps: int,
    refinements: int,
    T: int = 1000,
    convention: Convention = "exact",
    t_min: int = 0,
    t_max: int | None = None,
    *,
    combine: Combine = "average",
    skip_first: bool = False,
    where: Where = "every",
    spacing: Spacing = "even",
    reuse_last: bool = False,
) -> float:
    """Mean network passes for each of `levels` timesteps of one image that share a trajectory. Exact, not sampled.

    One uniform u gives all of them, t_k = t_min + floor(span (u + k) / levels); the passes change only at those u where
    one of them does. With `levels` 1 this is `counting.expected_passes`.
    """
    hops = itinerary(steps, T, convention=convention, skip_first=skip_first, spacing=spacing)
    span = (T - 1 if t_max is None else t_max) - t_min + 1
    each = forwards_per_hop(refinements, combine)
    # In units of 1/span: t_k = t_min + floor((v + k span) / levels) for v = u span in [0, span).
    breaks = {0, span}
    for k in range(levels):
        first = -(-k * span // levels)  # the smallest j with j levels >= k span
        breaks |= {j * levels - k * span for j in range(first, -(-(k + 1) * span // levels))}
    points = sorted(b for b in breaks if 0 <= b <= span)
    total = 0
    for low, high in pairwise(points):
        goal = sorted((t_min + (low + k * span) // levels for k in range(levels)), reverse=True)
        legs = plan_legs(
            goal, hops, T, image=[0] * levels, exact=convention == "exact", last_only=where == "last"
        )
        total += (high - low) * sum(
            leg.plain + (each - (reuse_last and k > 0)) * (len(leg.asked) - leg.plain)
            for k, leg in enumerate(legs)
        )
    return total / span / levels
