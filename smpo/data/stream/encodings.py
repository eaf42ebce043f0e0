"""Rows of images and prompts as the encoders made them: read from the caches, computed where missing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smpo.data.cache.encoded_store import EncodedStore
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.prefetch import Prefetch, picture_of
from smpo.data.progress import Progress
from smpo.data.stream.buckets import Size, latents_key
from smpo.data.stream.sample import Shown
from smpo.kinds import Denoiser, PairTable, Placement

__all__ = ["EncodedRows", "image_row", "prompt_row"]

_Job = tuple[str, Placement]
"""An image's id, and how it is laid onto the window."""


class EncodedRows:
    """What a denoiser's encoders make of a table. Images lie in one store for each size, prompts in one.

    `dtype` is how large rows are stored; `batch` images or prompts are encoded at once; `workers` threads decode and
    place images ahead of the encoder."""

    def __init__(
        self,
        table: PairTable,
        denoiser: Denoiser,
        cache: Path,
        *,
        batch: int,
        dtype: torch.dtype,
        workers: int = 0,
    ) -> None:
        self._denoiser, self._batch, self._workers = denoiser, batch, workers
        self._cache, self._dtype = cache, dtype
        self._images: dict[Size | None, EncodedStore] = {}
        self._prompts = EncodedStore(cache / "prompts", denoiser.encoder_key, dtype=dtype)
        self._read = picture_of(table)
        self._begun: Prefetch[_Job, Any] = Prefetch((), self._prepared, workers=0)

    def ensure_images(
        self,
        ids: Sequence[str],
        size: Size | None,
        progress: Progress | None = None,
        team: WorkSplit = SINGLE_PROCESS,
    ) -> None:
        """Encode those of `image_row`s that are missing; windows are centred."""

        def compute(names: Sequence[str]) -> Mapping[str, Tensor]:
            return self._encoded(self._begun.take(_jobs(names, size)))

        label = "encoding images" if size is None else f"encoding images {size[1]}x{size[0]}"
        store, begin = self._store(size), partial(self._begin, size=size)
        try:
            store.ensure(ids, compute, batch=self._batch, progress=progress, label=label, team=team, begin=begin)
        finally:
            self._begun.close()

    def begin_images(self, ids: Sequence[str], size: Size | None, team: WorkSplit = SINGLE_PROCESS) -> None:
        """Begin to decode and place what the next call, `ensure_images` with these ids, will encode. Collective."""
        self._begin(self._store(size).owed(ids, self._batch, team), size)

    def _begin(self, names: Sequence[str], size: Size | None) -> None:
        jobs = _jobs(names, size)
        if self._begun.items != jobs or not self._begun.waiting:
            self._begun.close()
            self._begun = Prefetch(jobs, self._prepared, workers=self._workers, least=2 * self._batch)

    def ensure_prompts(
        self, prompts: Sequence[str], progress: Progress | None = None, team: WorkSplit = SINGLE_PROCESS
    ) -> None:
        """Encode the missing ones."""
        texts = {prompt_row(prompt): prompt for prompt in prompts}

        def compute(names: Sequence[str]) -> Mapping[str, Tensor]:
            with torch.no_grad():
                return self._denoiser.encode_prompts([texts[name] for name in names])

        self._prompts.ensure(
            list(texts), compute, batch=self._batch, progress=progress, label="encoding prompts", team=team
        )

    def images(self, shown: Sequence[Shown]) -> Mapping[str, Tensor]:
        """`mean`, `std` and what else belongs to images; all have one size."""
        ids = [image_row(one.image, one.placement.flip) for one in shown]
        return self._store(shown[0].placement.size).rows(ids)

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of conditioning. Winner and loser share their prompt, as a rule: it is read once."""
        places: dict[str, int] = {}
        order = [places.setdefault(prompt_row(prompt), len(places)) for prompt in prompts]
        rows = self._prompts.rows(list(places))
        return {name: tensor[torch.tensor(order, device=tensor.device)] for name, tensor in rows.items()}

    def encode(self, images: Sequence[str], placements: Sequence[Placement]) -> Mapping[str, Tensor]:
        """Nothing is kept of this."""
        jobs = list(zip(images, placements, strict=True))
        with closing(Prefetch(jobs, self._prepared, workers=self._workers, least=len(jobs))) as begun:
            return self._encoded(begun.take(jobs))

    def _prepared(self, job: _Job) -> Any:
        """An encoder's work on the CPU, by any thread; of one that doesn't divide its work, the picture alone."""
        image, placement = job
        preprocess = getattr(self._denoiser, "preprocess", None)
        picture = self._read(image)
        return (picture, placement) if preprocess is None else preprocess(picture, placement)

    def _encoded(self, inputs: Sequence[Any]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            if getattr(self._denoiser, "preprocess", None) is not None:
                found: Mapping[str, Tensor] = self._denoiser.encode_inputs(inputs)  # type: ignore[attr-defined]
                return found
            pictures, placements = zip(*inputs, strict=True)
            return self._denoiser.encode_pictures(pictures, placements)

    def _store(self, size: Size | None) -> EncodedStore:
        if size not in self._images:
            key = latents_key(self._denoiser.encoder_key, size)
            self._images[size] = EncodedStore(self._cache / "latents", key, dtype=self._dtype)
        return self._images[size]


def _jobs(names: Sequence[str], size: Size | None) -> list[_Job]:
    parts = [name.rsplit("/", 1) for name in names]
    return [(image, Placement(flip=flip == "1", size=size)) for image, flip in parts]


def image_row(image: str, flip: bool) -> str:
    return f"{image}/{int(flip)}"


@lru_cache(maxsize=10_000)
def prompt_row(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]
