"""Rows of images and prompts as the encoders made them: asked of the caches, computed where they lack."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from smpo.data.buckets import Size, latents_key
from smpo.data.encoded import EncodedStore
from smpo.data.index import Progress
from smpo.data.stream import Shown
from smpo.data.team import ALONE, Team
from smpo.kinds import Denoiser, PairTable, Placement

__all__ = ["EncodedRows", "image_row", "prompt_row"]


class EncodedRows:
    """What a denoiser's encoders make of a table. Images lie in one store for each size, prompts in one.

    `dtype` is how large rows are stored; `batch` images or prompts are encoded at once."""

    def __init__(
        self, table: PairTable, denoiser: Denoiser, cache: Path, *, batch: int, dtype: torch.dtype
    ) -> None:
        self._table, self._denoiser, self._batch = table, denoiser, batch
        self._cache, self._dtype = cache, dtype
        self._images: dict[Size | None, EncodedStore] = {}
        self._prompts = EncodedStore(cache / "prompts", denoiser.encoder_key, dtype=dtype)

    def ensure_images(
        self, ids: Sequence[str], size: Size | None, progress: Progress | None = None, team: Team = ALONE
    ) -> None:
        """Encode those of `image_row`s that are missing; windows are centred."""

        def compute(names: Sequence[str]) -> Mapping[str, Tensor]:
            parts = [name.rsplit("/", 1) for name in names]
            return self.encode(
                [image for image, _ in parts], [Placement(flip=flip == "1", size=size) for _, flip in parts]
            )

        label = "encoding images" if size is None else f"encoding images {size[1]}x{size[0]}"
        store = self._store(size)
        store.ensure(ids, compute, batch=self._batch, progress=progress, label=label, team=team)

    def ensure_prompts(
        self, prompts: Sequence[str], progress: Progress | None = None, team: Team = ALONE
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
        with torch.no_grad():
            return self._denoiser.encode_pictures(
                [self._table.picture(image) for image in images], placements
            )

    def _store(self, size: Size | None) -> EncodedStore:
        if size not in self._images:
            key = latents_key(self._denoiser.encoder_key, size)
            self._images[size] = EncodedStore(self._cache / "latents", key, dtype=self._dtype)
        return self._images[size]


def image_row(image: str, flip: bool) -> str:
    return f"{image}/{int(flip)}"


@lru_cache(maxsize=10_000)
def prompt_row(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]
