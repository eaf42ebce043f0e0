"""How much disk a run will take, and whether there is that much. No torch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from smpo.app.plan.cache_use import CacheUse
from smpo.app.plan.forward_passes import Sampled, looks_every
from smpo.app.plan.gpu_memory import GB
from smpo.app.plan.gpu_time import state_bytes
from smpo.app.plan.workload import Architecture
from smpo.components.locations import to_fetch
from smpo.experiment import ExperimentSpec
from smpo.kinds import ModelFacts
from smpo.registry.resolve import Resolved

__all__ = ["DiskUse", "disk_use", "in_gb"]


@dataclass(frozen=True)
class DiskUse:
    """Bytes still to be written, at most; None where they can't be known."""

    latents: int | None = None
    prompts: int | None = None
    pictures: int | None = None
    """The base's, which the evaluation keeps for other runs."""
    inversions: int | None = None
    """What `runtime.reuse_inversions` keeps; None too where it keeps nothing."""
    checkpoints: int | None = None
    """All that are kept, and one more while it is written."""
    checkpoint: int | None = None
    model: int | None = None
    """The exported folder."""
    downloads: dict[str, float] = field(default_factory=dict)
    """Slots whose weights are still on the hub, in GB by their cards."""
    free: int | None = None
    """Where the caches go."""
    short: str | None = None
    """Why it can't be enough, in a sentence."""
    warnings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.cached + (self.checkpoints or 0) + (self.model or 0)

    @property
    def cached(self) -> int:
        return sum(part or 0 for part in (self.latents, self.prompts, self.pictures, self.inversions))


def disk_use(
    resolved: Resolved[ExperimentSpec],
    facts: ModelFacts,
    network: Architecture | None,
    caches: CacheUse,
    drawn: Sampled,
) -> DiskUse:
    """Images and prompts recur in real data, so what caches take is an upper bound: it warns. What a run takes
    for certain, half of the images' rows and its checkpoints, must fit."""
    spec = resolved.spec
    latents = _times(caches.images_to_encode, caches.latent_bytes)
    prompts = _times(caches.prompts_to_encode, caches.text_bytes)
    inversions = None if network is None else _inversions(spec, network.latent)
    state = state_bytes(spec.train.optimiser, None if facts.adapter else network)
    checkpoint = _times(4 + state + 4 * (spec.train.ema is not None), facts.trainable)
    kept = min(_checkpoints(spec), spec.runtime.keep + 1 + (spec.runtime.keep_best is not None))
    checkpoints = _times(kept, checkpoint)
    model = None
    if facts.adapter:  # in both layouts, diffusers' and kohya's
        model = None if facts.trainable is None else 2 * 4 * facts.trainable
    elif facts.trainable is not None and facts.parameters is not None:
        model = 4 * facts.parameters + round((network.encoders_gb if network else 0) * GB)
    here, there = _free(Path(spec.runtime.cache)), _free(Path(spec.runtime.runs))
    runs = (checkpoints or 0) + (model or 0)
    use = DiskUse(
        latents=latents,
        prompts=prompts,
        pictures=None if facts.resolution is None else round(drawn.samples / 2 * drawn.area * facts.resolution**2 * 3),
        inversions=inversions,
        checkpoints=checkpoints,
        checkpoint=checkpoint,
        model=model,
        downloads=_downloads(resolved),
        free=here,
    )
    sure, most = (latents or 0) // 2, use.cached
    same = _device(Path(spec.runtime.cache)) == _device(Path(spec.runtime.runs))
    short, warnings = None, []
    for folder, free, least, all_ in (
        (spec.runtime.cache, here, sure + (runs if same else 0), most + (runs if same else 0)),
        (spec.runtime.runs, there, 0 if same else runs, 0 if same else runs),
    ):
        if least > free:
            short = f"at least {in_gb(least)} will be written under `{folder}`, where {in_gb(free)} are free"
        elif all_ > free:
            warnings.append(f"up to {in_gb(all_)} may be written under `{folder}`, where {in_gb(free)} are free")
    return replace(use, short=short, warnings=warnings)


def in_gb(size: float) -> str:
    """`12 GB`, `3.4 GB`, `210 MB`, `40 kB`."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    if size < GB:
        return f"{size / 1e6:.0f} MB"
    return f"{size / GB:.1f} GB" if size < 10 * GB else f"{size / GB:,.0f} GB"


def _checkpoints(spec: ExperimentSpec) -> int:
    """How many are written in all."""
    every = spec.runtime.checkpoint_every
    best = spec.train.steps // looks_every(spec) if spec.runtime.keep_best is not None else 0
    return (-(-spec.train.steps // every) if every else 1) + best


def _inversions(spec: ExperimentSpec, latent: int) -> int | None:
    """Of both images at each visit: the noised latent, its noise and the reference's prediction, in 32 bits."""
    if not spec.runtime.reuse_inversions or getattr(spec.inversion, "by", "") != "reference":
        return None
    visits = spec.train.steps * spec.train.batch * spec.train.timesteps_per_pair
    return visits * spec.objective.levels_per_pair() * 2 * 3 * 4 * latent


def _times(count: float, each: int | None) -> int | None:
    return None if each is None else round(count * each)


def _downloads(resolved: Resolved[ExperimentSpec]) -> dict[str, float]:
    found: dict[str, float] = {}
    for slot, component in resolved.components().items():
        place = getattr(component, "weights", None)
        if isinstance(place, str) and to_fetch(place, revision=getattr(component, "revision", None)):
            card = resolved.card_of(slot)
            found.setdefault(place, card.needs.gigabytes or 0.0 if card else 0.0)
    return found


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _device(folder: Path) -> int:
    return _existing(folder).stat().st_dev
