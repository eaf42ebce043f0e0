"""Where an inversion goes, hop by hop, and therefore what it costs.

Pure Python, so that `smpo plan` computes costs without torch. `smpo.maths.inversion` follows the same itinerary.

Three time-grid conventions (method reference 1.4 and 1.5). With Δ = T // steps and grid levels
ℓ_k = offset + kΔ, a sample bound for timestep t makes these hops:

    exact      -1 → ℓ_0 → ℓ_1 → ... → t     all levels below t, then t itself; the network gets the target
    lt_0_22    ℓ_k-Δ → ℓ_k while ℓ_k-Δ < t  overshoots t; the network gets the *source*, first one negative
    ge_0_22    ℓ_k-Δ → ℓ_k while ℓ_k < t    undershoots t; the network gets the target

The last two reproduce diffusers' DDIMInverseScheduler below and from version 0.22 under the loop of the
official SmPO code, which was written for the former. A negative level means "clean": its ᾱ is `InversionConfig.start`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

__all__ = ["Leg", "plan_legs", "shared_passes"]

Convention = Literal["exact", "lt_0_22", "ge_0_22"]
Combine = Literal["average", "last", "none"]
Where = Literal["every", "last"]
Spacing = Literal["even", "quadratic"]
Start = Literal["one", "alpha0"]


@dataclass(frozen=True)
class InversionConfig:
    """Settings of a DDIM inversion with ReNoise refinements."""

    steps: int
    """Size n of the grid; a sample passes all levels below its t and then t itself ("exact")."""
    refinements: int = 1
    """K, extra network passes per hop."""
    combine: Combine = "average"
    """Use the mean of the K + 1 predictions or the last one; "none" never refines."""
    weights: Sequence[float] | None = None
    """Weights of the K + 1 predictions instead of `combine`, see `smpo.maths.renoise.iterate_weights`."""
    where: Where = "every"
    """Refine "every" hop, as SmPO's code does, or only the "last", on which a sample arrives."""
    spacing: Spacing = "even"
    """Of the grid, see `grid`: "even" (the paper), or "quadratic" ("exact" only)."""
    convention: Convention = "exact"
    """"exact" lands on t. "lt_0_22" and "ge_0_22" reproduce the official code under the two meanings of diffusers'
    DDIMInverseScheduler: x̃ sits at a grid level that isn't t while τ uses ᾱ_t; lt_0_22 even passes negative times to
    the network. The official code's batches follow the first sample's t; here each sample follows its own."""
    start: Start = "one"
    """ᾱ of the clean latent: 1, or ᾱ_0 as in schedulers with set_alpha_to_one=False. With "one", a single hop gives
    τ = ε̄ exactly."""
    offset: int = 1
    """A scheduler's `steps_offset`."""
    skip_first: bool = False
    """Leave out the small hop to the first grid level ("exact" only)."""
    reuse_last: bool = False
    """A hop's first prediction is the last one of the hop before: one pass fewer per hop but the first. An
    approximation that errs in the order of a hop."""
    half_alphas: bool = False
    """Compute τ from an ᾱ rounded to float16, as the official code does (method 2b, D13)."""

    def hops(self, T: int = 1000) -> tuple["Hop", ...]:
        """`itinerary` of these settings."""
        return itinerary(
            self.steps, T, convention=self.convention, offset=self.offset, skip_first=self.skip_first,
            spacing=self.spacing,
        )  # fmt: skip

    def forwards(self) -> int:
        """Network passes per refined hop."""
        return forwards_per_hop(self.refinements, self.combine)


class Hop(NamedTuple):
    """One stage of the itinerary. A sample bound for t takes part if and only if t > `after`.

    In the exact convention both ends are cut at t: min(source, t) → min(target, t).
    """

    source: int
    target: int
    after: int


def grid(steps: int, T: int = 1000, offset: int = 1, spacing: Spacing = "even") -> tuple[int, ...]:
    """Ascending levels for k = 0 .. steps-1.

    even       ℓ_k = offset + k·(T // steps): diffusers' "leading" spacing, as the official code has it
    quadratic  ℓ_k = offset + ⌊(k / steps)²·(T - 1 - offset)⌋, strictly ascending: dense where little noise
               grows to much. On the way up an image has to gain noise by orders of magnitude between levels
               1 and 200, which an even grid of ten steps crosses in two hops.

    `offset` is a scheduler's `steps_offset` (1 for SD 1.5 and SDXL). Raises ValueError when steps is not in
    1..T, or when the last level falls off the table (for example steps = T with offset 1).
    """
    if not 1 <= steps <= T:
        raise ValueError(f"steps must be between 1 and {T}, the number of training timesteps; got {steps}.")
    if spacing == "even":
        levels = tuple(offset + k * (T // steps) for k in range(steps))
    else:
        # Never fewer than k levels below the k-th, so that small k don't fall together.
        levels = tuple(offset + max(k, k * k * (T - 1 - offset) // (steps * steps)) for k in range(steps))
    if levels[0] < 0 or levels[-1] > T - 1:
        raise ValueError(
            f"{steps} steps with offset {offset} reach from level {levels[0]} to {levels[-1]}, outside "
            f"0..{T - 1}. Use fewer steps or offset 0."
        )
    return levels


def itinerary(
    steps: int,
    T: int = 1000,
    *,
    convention: Convention = "exact",
    offset: int = 1,
    skip_first: bool = False,
    spacing: Spacing = "even",
) -> tuple[Hop, ...]:
    """All hops that any sample can make, in order; `after` never decreases.

    `skip_first` goes from the clean latent straight to the second level. The hop to level 1 barely moves
    anything (ᾱ_1 = 0.998) and costs as much as any other. Only in the exact convention: the other two exist
    to reproduce released code. Raises ValueError for that, for an unknown convention and for a bad grid.
    """
    levels = grid(steps, T, offset, spacing)
    if convention != "exact" and spacing != "even":
        raise ValueError(
            f"spacing={spacing!r} changes the path, which {convention!r} exists to reproduce; use 'exact'."
        )
    if convention == "exact":
        if skip_first:
            levels = levels[1:]
        stops = (-1, *levels, T - 1)
        return tuple(Hop(a, b, after=a) for a, b in pairwise(stops))
    if skip_first:
        raise ValueError(f"skip_first changes the path that {convention!r} exists to reproduce; use 'exact'.")
    delta = T // steps
    if convention == "lt_0_22":
        return tuple(Hop(b - delta, b, after=b - delta) for b in levels)
    if convention == "ge_0_22":
        return tuple(Hop(b - delta, b, after=b) for b in levels)
    raise ValueError(f"unknown convention {convention!r}; choose exact, lt_0_22 or ge_0_22.")


def forwards_per_hop(refinements: int, combine: Combine = "average") -> int:
    """Network passes per hop: one, plus one per ReNoise refinement. `combine="none"` never refines."""
    if refinements < 0:
        raise ValueError(f"refinements must not be negative; got {refinements}.")
    return 1 if combine == "none" else refinements + 1


def expected_passes(config: InversionConfig, T: int = 1000, t_min: int = 0, t_max: int | None = None) -> float:
    """Mean network passes per sample for t uniform on t_min..t_max, both included. Exact, not sampled.

    SD 1.5's official settings (5 steps, one refinement) give 7.58 with lt_0_22; SDXL's (10 steps) 12.76. Raises
    ValueError for timesteps outside 0..T-1 or an empty range.
    """
    hops, each = config.hops(T), config.forwards()
    low, high = _within(t_min, T), _within(T - 1 if t_max is None else t_max, T)
    if low > high:
        raise ValueError(f"t_min ({low}) is above t_max ({high}).")
    # A hop is taken by every t in (after, high] that is at least low.
    taken = [max(0, high - max(hop.after, low - 1)) for hop in hops]
    total, samples = (
        sum(taken),
        max(taken, default=0),
    )  # every sample that moves takes the first hop and a last one
    if config.reuse_last:
        passes = (each - 1) * total + samples
    elif config.where == "every":
        passes = each * total
    else:
        passes = total + (each - 1) * samples
    return passes / (high - low + 1)


def _within(t: int, T: int) -> int:
    if not 0 <= t < T:
        raise ValueError(f"timestep {t} is outside 0..{T - 1}.")
    return t


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
