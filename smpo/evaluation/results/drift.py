"""How far a policy has gone from its base, where no KL can be computed: in pictures, in features, in what is predicted.

Two methods that gained equally aren't equal when one of them went twice as far, so gain is shown beside distance. All
distances are means over prompts with 95 % intervals, at the same prompts, seeds, timesteps and noise for every model:

    picture   root mean square difference of the two pictures' pixels (0 to 1); in the plane, the distance
    feature   1 - cos(e(policy's picture), e(base's picture)), e being a judge's image embedding
    error     mean over t of |eps_policy(x_t, t, c) - eps_base(x_t, t, c)|^2 / d,  x_t = alpha_t x_0 + sigma_t eps

In `error`, x_0 are the base's own pictures (with guidance, as they were drawn; of pictures that aren't square, the
middle) and t the middles of eight equal parts of the schedule. Weighted along the path it would be the KL of two
samplers; unweighted it is a gauge, to be compared between policies of one base and no further. It needs no picture of
the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from smpo.evaluation.statistics.intervals import cluster_codes, mean_interval
from smpo.kinds import DRIFT_TIMESTEPS, Conditioning, Denoiser, Placement, Prompt, Scorer

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from smpo.kinds import Picture

__all__ = [
    "SIDE", "Distance", "Drift", "DriftProbe", "distances", "error_distances", "feature_distances",
    "picture_distances", "pixels",
]  # fmt: skip

Floats = NDArray[np.float64]
SIDE = 64
"""Pixels are compared at this side at most."""
_SEED = 31_415
"""Of the noise; no part of a spec."""


@dataclass(frozen=True)
class Distance:
    """A mean over prompts with its 95 % interval (None with one cluster)."""

    kind: str
    """`picture`, `feature` or `error`."""
    by: str
    """The judge whose features they are."""
    value: float
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.by})" if self.by else self.kind

    def short(self) -> str:
        half = None if self.low is None or self.high is None else (self.high - self.low) / 2
        return f"{self.value:.3g}" + ("" if half is None else f" ± {half:.1g}")

    def __str__(self) -> str:
        bounds = "" if self.low is None or self.high is None else f" [{max(0.0, self.low):.2g}, {self.high:.2g}]"
        return f"{self.value:.3g}{bounds}"


@dataclass(frozen=True)
class Drift:
    """All distances of one policy from its base, and what they cost."""

    distances: tuple[Distance, ...]
    prompts: int
    passes: int
    """Network passes, of both models."""

    def metrics(self) -> dict[str, float]:
        """`drift/error`, `drift/picture`, `drift/feature_<judge>`."""
        return {f"drift/{one.kind}" + (f"_{one.by}" if one.by else ""): one.value for one in self.distances}

    def cells(self) -> dict[str, str]:
        """A column a distance; ± is half of its 95 % interval."""
        return {one.name: one.short() for one in self.distances}

    def sentence(self) -> str:
        return f"{', '.join(f'{one.name} {one}' for one in self.distances)} on {self.prompts} prompts"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"distances": [asdict(one) for one in self.distances]}  # a list, as in JSON


@dataclass(frozen=True)
class DriftProbe:
    """Noisy latents of the base's own pictures, the same for every network."""

    texts: tuple[str, ...]
    x0: Tensor
    """`[N, C, H, W]`, on the CPU."""
    rows: Mapping[str, Tensor]
    """Conditioning that belongs to the pictures (SDXL's sizes)."""
    positions: tuple[int, ...]
    batch: int

    @classmethod
    def of(
        cls, denoiser: Denoiser, texts: Sequence[str], seeds: Sequence[int], pictures: Sequence[Picture], batch: int
    ) -> DriftProbe:  # fmt: skip
        """`seeds` name the noise, one a picture. The denoiser lends its encoders."""
        import torch

        parts = [
            denoiser.encode_pictures(part, [Placement()] * len(part))
            for start in range(0, len(pictures), batch)
            if (part := pictures[start : start + batch])
        ]
        rows = {name: torch.cat([encoded[name].cpu() for encoded in parts]) for name in parts[0]}
        x0 = rows.pop("mean")
        rows.pop("std")
        return cls(tuple(texts), x0, rows, tuple(seeds), batch)

    @property
    def passes(self) -> int:
        """Of one network."""
        return len(self.x0) * DRIFT_TIMESTEPS

    def predictions(self, denoiser: Denoiser, *, reference: bool = False, prefix: str = "") -> Tensor:
        """`[N, T, C, H, W]` float32 on the CPU: the noise that this network predicts. `prefix` goes before each prompt
        (CSFT's policies)."""
        import torch

        from smpo.maths.draws import PositionDraws

        schedule, device = denoiser.schedule, denoiser.device
        found = []
        with torch.no_grad():
            for start in range(0, len(self.x0), self.batch):
                rows_of = slice(start, start + self.batch)
                x0 = self.x0[rows_of].to(device)
                rows = denoiser.encode_prompts([prefix + text for text in self.texts[rows_of]])
                images = {name: value[rows_of] for name, value in self.rows.items()}
                cond = Conditioning(rows).merged(images).to(device)
                draws = PositionDraws(_SEED, self.positions[rows_of], device)
                levels = []
                for t in _timesteps(len(schedule.alphas_cumprod)):
                    times = torch.full((len(x0),), t, device=device, dtype=torch.long)
                    x_t = schedule.add_noise(x0, draws.normal(f"drift/{t}", x0.shape[1:]).to(x0), times)
                    output = denoiser.predict(x_t, times, cond, reference=reference)
                    levels.append(schedule.epsilon(output, x_t, times).float().cpu())
                found.append(torch.stack(levels, dim=1))
        return torch.cat(found)


def error_distances(policy: Tensor, base: Tensor) -> Floats:
    """`[N]` from two networks' predictions `[N, T, C, H, W]`, in double precision."""
    return np.asarray((policy.double() - base.double()).square().flatten(1).mean(1).numpy(), dtype=np.float64)


def feature_distances(
    scorers: Mapping[str, Scorer], policy: Sequence[Picture], base: Sequence[Picture]
) -> dict[str, Floats]:
    """`[N]` for each scorer that looks at pictures through an embedding (`embed`: pictures -> `[N, D]`)."""
    found = {}
    for name, scorer in scorers.items():
        embed: Callable[[Sequence[Picture]], Tensor] | None = getattr(scorer, "embed", None)
        if embed is None:
            continue
        ours, theirs = (np.asarray(embed(side).double().numpy()) for side in (policy, base))
        # Half the squared distance of unit vectors is one minus their cosine, without its cancellation.
        found[name] = np.square(_unit(ours) - _unit(theirs)).sum(axis=1) / 2
    return found


def picture_distances(policy: Sequence[Picture], base: Sequence[Picture]) -> Floats:
    """`[N]`: root mean square over pixels and channels, or the distance between points."""
    if isinstance(base[0], np.ndarray):
        ours, theirs = (
            np.stack([np.asarray(point, dtype=np.float64).ravel() for point in side]) for side in (policy, base)
        )
        return np.asarray(np.linalg.norm(ours - theirs, axis=1))
    both = zip(*(map(pixels, cast("Sequence[Image.Image]", side)) for side in (policy, base)), strict=True)
    return np.array([np.sqrt(np.square(ours - theirs).mean()) for ours, theirs in both])  # sizes may vary


def distances(
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    policy: Sequence[Picture],
    base: Sequence[Picture],
    errors: tuple[Tensor, Tensor] | None,
    passes: int = 0,
) -> Drift:
    """Everything that is known about a policy. `errors`: predictions of policy and base; rows are prompts throughout.

    A prompt without a finite distance is left out of that distance.
    """
    groups = [prompt.group or prompt.text for prompt in prompts]
    rows = [("picture", "", picture_distances(policy, base))]
    rows += [("feature", name, values) for name, values in feature_distances(scorers, policy, base).items()]
    if errors is not None:
        rows.append(("error", "", error_distances(*errors)))
    found = []
    for kind, by, values in rows:
        finite = np.isfinite(values)
        if finite.any():
            codes = cluster_codes([group for group, keep in zip(groups, finite, strict=True) if keep])
            found.append(Distance(kind, by, *mean_interval(values[finite], codes)))
    return Drift(tuple(found), len(prompts), passes)


def _timesteps(count: int) -> list[int]:
    """The middles of equal parts of a schedule of `count` levels."""
    parts = min(DRIFT_TIMESTEPS, count)
    return [count * (2 * k + 1) // (2 * parts) for k in range(parts)]


def _unit(rows: NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)


def pixels(picture: Image.Image, size: tuple[int, int] | None = None) -> Floats:
    """`[H, W, 3]` from 0 to 1; without a `size` reduced to `SIDE` where a side is longer."""
    from PIL import Image

    rgb = picture.convert("RGB")
    size = size or (rgb.size if max(rgb.size) <= SIDE else (SIDE, SIDE))
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BOX)
    return np.asarray(rgb, dtype=np.float64) / 255
