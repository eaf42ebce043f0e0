"""DDIM inversion with ReNoise: the noise that belongs to an image, computed with the model itself.

Plain diffusion DPO draws noise at random. SmPO walks the clean latent up the model's own deterministic path
to x̃_t and takes τ, the noise that explains x̃_t, as the regression target. A hop between levels a → b is

    move(x, ε) = √ᾱ_b · (x - √(1-ᾱ_a) ε)/√ᾱ_a + √(1-ᾱ_b) · ε,      ε from `renoise`

K = 0 refinements are DDIM inversion; SmPO uses K = 1 and the average of both predictions at every hop, as its
official code does (the paper may mean one correction at the end); K → ∞ with the last iterate solves the
implicit equation, and DDIM sampling then returns exactly to the start.

Every sample has its own t. There is no loop over samples: a hop takes all those that haven't arrived yet. Samples
that start from one image share their way for as long as it is the same (`images`): their x̃_t and τ are those of
separate inversions, and the network runs once. The host plans all hops before the first one, so that it never waits for
a GPU.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from smpo.maths.hops import InversionConfig, Start, grid, itinerary, plan_legs
from smpo.maths.renoise import iterate_weights, renoise
from smpo.maths.schedule import NoiseSchedule, sent, widen


class Predict(Protocol):
    """A network: its raw output, in its own parameterisation.

    `x` [n, ...] in the dtype of the latents given, `t` [n] integers, `rows` [n] their places in the original batch,
    by which conditioning is gathered (`cond[rows]`).
    """

    def __call__(self, x: Tensor, t: Tensor, rows: Tensor, /) -> Tensor: ...


class Noised(NamedTuple):
    """A noisy latent and the noise in it, both [N, ...] in at least float32.

    `passes` counts network passes of the whole batch, one per row. `key` identifies the result in a cache of inversions
    and of the reference's predictions; empty without one.
    """

    x_t: Tensor
    noise: Tensor
    passes: int
    key: str = ""


class InversionStep(NamedTuple):
    """One hop, as it happened. `rows`, levels and time are [n]; `noise` and `x` (after the hop) [n, ...].

    `passes` counts network passes, one per row sent; `hop` is the hop's number in the itinerary.
    """

    rows: Tensor
    source: Tensor
    target: Tensor
    time: Tensor
    noise: Tensor
    x: Tensor
    passes: int = 0
    hop: int = 0


def move(x: Tensor, eps: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """Deterministic DDIM move between two noise levels along ε (Song et al. 2021, equation 12, η = 0).

    `abar_*` broadcast against x; give them in float64, the two coefficients are rounded to x's dtype at the
    end. ᾱ_from must not be 0 (use v-prediction and `ddim_sample`, which moves through x̂0, there).
    """
    scale, shift = _line(abar_from, abar_to, x.dtype)
    return scale * x + shift * eps


def _line(abar_from: Tensor, abar_to: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`move` as scale · x + shift · ε."""
    scale = (abar_to / abar_from).sqrt()
    shift = (1 - abar_to).sqrt() - scale * (1 - abar_from).sqrt()
    return scale.to(dtype), shift.to(dtype)


def noise_of(x: Tensor, clean: Tensor, abar: Tensor) -> Tensor:
    """(x - √ᾱ x̂0)/√(1-ᾱ): the noise in x, at level ᾱ, if `clean` is the image in it. Not finite at ᾱ = 1."""
    return (x - abar.sqrt().to(x.dtype) * clean) / (1 - abar).sqrt().to(x.dtype)


def inversion_steps(
    x0: Tensor,
    t: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    config: InversionConfig,
    images: Sequence[int] | None = None,
) -> Iterator[InversionStep]:
    """The hops of `invert`, one by one. Arguments as there."""
    if t.shape != x0.shape[:1]:
        raise ValueError(f"t must hold one timestep per sample: {tuple(t.shape)} against {tuple(x0.shape)}.")
    w = iterate_weights(config.refinements, config.combine, config.weights)
    if config.reuse_last and (len(w) < 2 or config.where == "last"):
        raise ValueError("reuse_last needs refinements at every hop: without one the network never runs.")
    # Sorted by t, those that haven't arrived are always the first n: slices.
    goal = t.tolist()
    order = sorted(range(len(goal)), key=lambda i: -goal[i])
    image = None if images is None else [images[i] for i in order]
    legs = plan_legs([goal[i] for i in order], config, schedule.T, image=image)
    on_device = sent(order, x0.device)
    x = widen(x0.detach())[on_device]
    last: Tensor | None = None  # the evaluation with which each sample's hop before this one ended
    for leg in legs:
        n, asked = leg.moving, None if leg.spread is None else sent(leg.asked, x.device)
        source, target = sent(leg.source, x.device), sent(leg.target, x.device)
        time = source if config.convention == "lt_0_22" else target
        rows = on_device[:n] if asked is None else on_device[asked]
        # Not round the yield: a suspended generator would leave gradients off for its caller.
        with torch.no_grad():
            old = x[:n] if asked is None else x[asked]
            ends = _abar(schedule, source, old, config.start), _abar(schedule, target, old, config.start)
            first = None if last is None else (last[:n] if asked is None else last[asked])
            parts = [
                _hop(
                    _Evaluation(predict, schedule, time[some], rows[some], x0.dtype), old[some],
                    (ends[0][some], ends[1][some]), v, None if first is None else first[some],
                )
                for some, v in ((slice(0, leg.plain), (1.0,)), (slice(leg.plain, len(leg.source)), w))
                if some.start < some.stop
            ]  # fmt: skip
            noise, new, ended = (torch.cat(column) for column in zip(*parts, strict=True))
            if leg.spread is not None:
                spread = sent(leg.spread, x.device)
                noise, new, ended, source, target, time = (v[spread] for v in (noise, new, ended, source, target, time))
            x = torch.cat([new, x[n:]])
        passes = leg.plain + (len(w) - (last is not None)) * (len(leg.source) - leg.plain)
        last = ended if config.reuse_last else None
        yield InversionStep(on_device[:n], source, target, time, noise, new, passes, leg.hop)


def invert(
    x0: Tensor,
    t: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    config: InversionConfig,
    images: Sequence[int] | None = None,
) -> Noised:
    """Carry clean latents up to their timesteps along the model's own path, without gradients.

    x0 [N, ...], t [N] integers in 0..T-1, free to differ (on the CPU, or the device is waited for). Returns
    x̃_t and τ = (x̃_t - √ᾱ_t x0)/√(1-ᾱ_t).

    `images` [N]: samples with the same number start from the same latent with the same conditioning, so that they share
    all hops but the last. None: each has its own.

    States are kept in at least float32; `predict` gets the dtype of x0. A v-prediction is converted with ᾱ at the time
    that the network gets (level 0 if that is negative); diffusers uses the source level. Only epsilon models are
    compared with it. Raises ValueError for inconsistent settings.
    """
    x0 = x0.detach()
    x = widen(x0).clone()
    passes = 0
    for step in inversion_steps(x0, t, predict, schedule, config, images):
        x[step.rows] = step.x
        passes += step.passes
    return Noised(x, schedule.noise_between(x0, x, t, half=config.half_alphas), passes)


def denoise(
    x_t: Tensor,
    t: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    *,
    steps: int,
    end: Start = "one",
    offset: int = 1,
    skip_first: bool = False,
) -> Tensor:
    """Deterministic DDIM from each sample's t down to the clean latent: the mirror of an exact inversion.

    Visits t, then the grid levels below it, then the clean level whose ᾱ `end` names. One network pass per
    hop, at the noisier end. Moves through x̂0, so ᾱ_t = 0 is fine for v-prediction. Keeps gradients if the
    caller does. Returns [N, ...] in at least float32.
    """
    order = torch.argsort(t, descending=True, stable=True)
    goal = t[order]
    bound_for = goal.tolist()
    x = widen(x_t)[order]
    for hop in reversed(itinerary(steps, schedule.T, offset=offset, skip_first=skip_first)):
        n = sum(g > hop.after for g in bound_for)
        if n == 0:
            continue
        old = x[:n]
        level = goal[:n].clamp(max=hop.target)
        output = predict(old.to(x_t.dtype), level, order[:n]).to(old.dtype)
        clean, noise = schedule.x0(output, old, level), schedule.epsilon(output, old, level)
        a = _abar(schedule, goal[:n].clamp(max=hop.source), old, end)
        x = torch.cat([a.sqrt().to(x.dtype) * clean + (1 - a).sqrt().to(x.dtype) * noise, x[n:]])
    return x[torch.argsort(order)]


def ddim_sample(
    x_T: Tensor,
    predict: Predict,
    schedule: NoiseSchedule,
    steps: int,
    *,
    offset: int = 1,
    set_alpha_to_one: bool = False,
) -> Tensor:
    """DDIM sampling from pure noise, as diffusers' DDIMScheduler does with leading spacing, η = 0 and
    clip_sample=False: the noise is taken to sit at the last grid level (901 for ten steps), not at T-1."""
    t = torch.full((x_T.shape[0],), grid(steps, schedule.T, offset)[-1], device=x_T.device)
    end: Start = "one" if set_alpha_to_one else "alpha0"
    return denoise(x_T, t, predict, schedule, steps=steps, end=end, offset=offset)


class _Evaluation(NamedTuple):
    """The network as a hop calls it: `predict` at `time` for `rows`, with inputs of `dtype`."""

    predict: Predict
    schedule: NoiseSchedule
    time: Tensor
    rows: Tensor
    dtype: torch.dtype

    def __call__(self, point: Tensor, x: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
        """ε̂ at `point`, on a hop from `x` between the two ᾱ in `ends`."""
        level = self.time.clamp(min=0)
        output = self.predict(point.to(self.dtype), self.time, self.rows).to(point.dtype)
        noise = self.schedule.epsilon(output, point, level)
        if not self.schedule.ends_in_noise:
            return noise
        # At ᾱ = 0, ε̂ is the point itself for every output: the hop would not move, and would count the rest of the
        # image as noise. The output gives x̂0 there: x without it is the noise, and DDIM's step back ends at x again.
        rest = noise_of(x, self.schedule.x0(output, point, level), ends[0])
        return torch.where((ends[1] == 0) & (ends[0] < 1), rest, noise)


def _hop(
    evaluation: _Evaluation,
    x: Tensor,
    ends: tuple[Tensor, Tensor],
    weights: Sequence[float],
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One ReNoised move between the two ᾱ in `ends`: the direction taken, the new point, the last prediction.
    `first`: see `renoise`."""
    scale, shift = _line(*ends, x.dtype)

    def hop(eps: Tensor) -> Tensor:
        return scale * x + shift * eps

    noise, ended = renoise(x, lambda point: evaluation(point, x, ends), hop, weights, first)
    return noise, hop(noise), ended


def _abar(schedule: NoiseSchedule, level: Tensor, like: Tensor, start: Start) -> Tensor:
    """ᾱ per sample; a negative level is the clean latent, whose ᾱ is 1 or ᾱ_0."""
    if start not in ("one", "alpha0"):
        raise ValueError(f"unknown ᾱ for the clean latent: {start!r}; choose one or alpha0.")
    value = schedule.abar_exact(level.clamp(min=0), like)
    if start == "alpha0":
        return value
    return torch.where(level.reshape(value.shape) < 0, torch.ones_like(value), value)
