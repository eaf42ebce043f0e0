"""Inversion along ways that are remembered: what an earlier policy found for an image need not be found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from smpo.components.inversions.walk import RefinedInversion
from smpo.errors import SpecError
from smpo.kinds import Draws, Inversion, Predictors
from smpo.maths.hops import grid
from smpo.registry.component import register

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.maths.inversion import Noised
    from smpo.maths.schedule import NoiseSchedule

__all__ = ["StaleInversion"]


@register
class StaleInversion(RefinedInversion):
    """ReNoise inversion that goes on from where the policy of some updates ago had come with the same image.

    Of each image and prompt, the noise at the grid's levels is remembered. At a later visit the image is put at the
    highest remembered level below its timestep, x = √ᾱ x0 + √(1-ᾱ) τ, and only the hops from there are made, by the
    policy of the moment; always at least one. A first visit costs what `renoise` costs and finds the same. Approximate:
    the remembered part is the path of other weights, and, with `train.posterior: sample`, of a neighbouring latent.

    Pays where images come back within `max_age` updates, that is over several epochs of few pairs. Memory on the
    device: one latent for each grid level, image and prompt of the last `max_age` updates. One process only.
    """

    use: Literal["stale"] = "stale"
    version: ClassVar[int] = 1
    stateful: ClassVar[bool] = True

    max_age: int = Field(50, ge=1)
    """Updates after which a remembered way is forgotten, and walked anew."""

    @model_validator(mode="after")
    def _can_go_on(self) -> StaleInversion:
        if self.convention != "exact":
            raise SpecError(
                "convention",
                f"`{self.convention}` reproduces released code, which remembers nothing",
                help="leave `inversion.convention` at `exact`, or use `renoise`",
            )
        if self.reuse_last:
            raise SpecError(
                "reuse_last", "who goes on from a remembered level has no last prediction to begin with"
            )
        return self

    def bind(self, pairs_per_update: int) -> Inversion:
        return _Remembering(self, pairs_per_update)  # type: ignore[return-value]

    def mean_passes(
        self, timesteps: int, t_min: int, t_max: int, levels: int = 1, gap: float | None = None
    ) -> float:
        """A way lives for n = 1 + ⌊max_age / gap⌋ visits. With a the number of levels below t, and r of those up to
        it, the j-th of them costs E[a] + 1 - Σ_v P(a >= v) P(largest of j - 1 earlier r >= v) hops.

        Several timesteps a visit share their hops in too many ways to count: for them the price is that of no memory.
        """
        if gap is None or levels > 1 or gap > self.max_age:
            return self.expected_passes(timesteps, t_min, t_max, levels)
        ladder = grid(self.steps, timesteps, spacing=self.spacing)[self.skip_first :]
        span = range(t_min, t_max + 1)
        below = [sum(level < t for level in ladder) for t in span]
        reach = [sum(level <= t for level in ladder) for t in span]
        mean = sum(below) / len(span)
        visits = 1 + int(self.max_age / max(gap, 1.0))
        hops = 0.0
        for j in range(visits):
            known = (
                sum(a >= v for a in below) / len(span) * (1 - (sum(r < v for r in reach) / len(span)) ** j)
                for v in range(1, len(ladder) + 1)
            )
            hops += (mean + 1 - sum(known)) / visits
        each = 1 + self.refinements
        return self.networks() * (each * hops if self.where == "every" else hops + self.refinements)

    def warnings(self, gap: float | None) -> Sequence[str]:
        if gap is None or gap <= self.max_age:
            return ()
        return (
            f"a pair comes back after some {gap:,.0f} updates, and `stale` remembers for {self.max_age}: it will do "
            "what `renoise` does, and use more memory",
        )


@dataclass(frozen=True)
class _Way:
    """`noise` `[reach, C, H, W]` at the grid's first levels, walked (where it is oldest) in update `born`."""

    noise: Tensor
    born: int


class _Remembering:
    """A stale inversion in one run. What an update finds is for later updates, so that windows don't matter."""

    def __init__(self, inner: StaleInversion, pairs_per_update: int) -> None:
        self._inner, self._pairs = inner, pairs_per_update
        self._known: dict[str, _Way] = {}
        self._found: dict[str, _Way] = {}
        self._update = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def state(self) -> dict[str, Tensor]:
        """The memory, for a checkpoint."""
        self._settle()
        return {f"{way.born}/{name}": way.noise for name, way in self._known.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._found = {}
        self._known = {}
        for key, noise in state.items():
            born, _, name = key.partition("/")
            self._known[name] = _Way(noise, int(born))

    def __call__(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, draws: Draws
    ) -> Noised:
        names, positions = predict.pictures, getattr(draws, "positions", None)
        if not names or not positions:
            return self._inner(x0, t, predict, schedule, draws)
        self._begin(int(positions[0]) // self._pairs)
        return self._walk(x0, t, predict, schedule, list(names))

    def _begin(self, update: int) -> None:
        if update != self._update:
            self._settle()
            self._update = update
            oldest = update - self._inner.max_age
            self._known = {name: way for name, way in self._known.items() if way.born >= oldest}

    def forget(self) -> None:
        """What the present update has found is not to be gone on from."""
        self._found = {}

    def _settle(self) -> None:
        self._known |= self._found
        self._found = {}

    def _walk(
        self, x0: Tensor, t: Tensor, predict: Predictors, schedule: NoiseSchedule, names: list[str]
    ) -> Noised:
        import torch

        from smpo.maths.inversion import Midway, Noised, inversion_steps
        from smpo.maths.schedule import sent, widen

        inner = self._inner
        ladder = grid(inner.steps, schedule.T, spacing=inner.spacing)[inner.skip_first :]
        goals = t.tolist()
        x = widen(x0.detach()).clone()
        noise = x.new_zeros(len(x), len(ladder), *x.shape[1:])
        begin = [0] * len(x)
        on = [i for i, name in enumerate(names) if name in self._known]
        for i in on:
            kept = len(self._known[names[i]].noise)
            begin[i] = sum(level < goals[i] for level in ladder[:kept])
        on = [i for i in on if begin[i]]
        if on:
            rows = sent(on, x.device)
            last = sent([begin[i] - 1 for i in on], x.device)
            old = [self._known[names[i]].noise for i in on]
            noise[rows] = torch.stack(
                [torch.cat([one, one.new_zeros(noise[0, len(one) :].shape)]) for one in old]
            ).to(noise)
            level = sent([ladder[begin[i] - 1] for i in on], x.device)
            x = x.index_copy(0, rows, schedule.add_noise(x[rows], noise[rows, last], level))
        passes, options = 0, inner.options(len(x0), predict)
        half = options.pop("half_alphas")
        for step in inversion_steps(
            x0, t, inner.followed(predict), schedule, midway=Midway(x, begin), **options
        ):
            x[step.rows] = step.x
            passes += step.passes
            if step.hop < len(
                ladder
            ):  # those that landed before the level leave something that nobody will read
                noise[step.rows, step.hop] = schedule.noise_between(x0[step.rows], step.x, step.target)
        self._keep(names, goals, begin, noise, ladder)
        return Noised(x, schedule.noise_between(x0, x, t, half=half), passes * inner.networks())

    def _keep(
        self, names: list[str], goals: list[int], begin: list[int], noise: Tensor, ladder: Sequence[int]
    ) -> None:
        """The longest way of each image; of equal ones the first of the stream."""
        for i, name in enumerate(names):
            reach = sum(level <= goals[i] for level in ladder)
            old, found = self._known.get(name), self._found.get(name)
            if reach <= max((len(way.noise) for way in (old, found) if way is not None), default=0):
                continue
            born = old.born if old is not None and begin[i] else self._update
            self._found[name] = _Way(noise[i, :reach].clone(), born)
