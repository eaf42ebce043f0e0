"""The micro-batches of an update, with everything that frozen networks can compute already computed.

Which pair stands at a position of the stream, whether it is mirrored, where it is cut and whether its prompt
is kept are functions of (seed, position). The two images of a pair share one placement; the official code
mirrors each by its own coin, so that a preference may be learnt for a side (method 2b, D20).

Latents are kept as the moments of the posterior, so that a new one can be drawn at each visit (D31).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from smpo.data.encoded import EncodedStore
from smpo.data.index import Progress
from smpo.data.order import Order
from smpo.kinds import Conditioning, Denoiser, Pair, PairBatch, PairTable, Placement
from smpo.maths.draws import PositionDraws

__all__ = ["PairLoader", "Sample", "Stream"]


@dataclass(frozen=True)
class Stream:
    """What the stream of samples consists of: fields of `train`, under their names there.

    `batch` is pairs per update over all processes; `micro_batch` is how many of them a process holds at once.
    """

    seed: int
    batch: int
    micro_batch: int | None = None
    flip: bool = False
    crop: Literal["centre", "random"] = "centre"
    prompt_dropout: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One visit to a pair: the pair at `row` of the table, at `position` of the stream, as it is shown
    there."""

    position: int
    row: int
    pair: Pair
    prompt: str
    placement: Placement


class PairLoader:
    """Micro-batches by update number. Holds no place in the stream, so any update can be asked for, in any
    order.

    `p` `[M]` is the smoothed probability of each pair of the table. `cache` is the folder of encoded rows;
    `dtype` how large ones are stored there. `encode_batch` images or prompts are encoded at once."""

    def __init__(
        self,
        table: PairTable,
        p: Tensor,
        denoiser: Denoiser,
        stream: Stream,
        *,
        cache: Path,
        encode_batch: int = 32,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if p.shape != (len(table),):
            raise ValueError(f"p has shape {tuple(p.shape)}, the table {len(table)} pairs")
        self._table, self._p, self._denoiser, self._stream = table, p, denoiser, stream
        self._order = Order(stream.seed, len(table))
        self._encode_batch = encode_batch
        self._ready = range(0)  # positions that need no encoder any more
        key = denoiser.encoder_key
        self._images = EncodedStore(cache / "latents", key, dtype=dtype)
        self._prompts = EncodedStore(cache / "prompts", key, dtype=dtype)

    def prepare(self, steps: int, *, start: int = 0, progress: Progress | None = None) -> None:
        """Encode whatever updates `start .. steps-1` will visit, and only that, in the order of the table.

        Worth calling once, before training and in one process: afterwards no batch waits for an encoder,
        except for random crops, which are different at each visit."""
        positions = range(start * self._stream.batch, steps * self._stream.batch)
        prompts: dict[str, None] = {}
        visits: set[tuple[int, bool]] = set()
        for first in range(positions.start, positions.stop, 4096):
            for sample in self._samples(range(first, min(first + 4096, positions.stop))):
                prompts[sample.prompt] = None
                visits.add((sample.row, sample.placement.flip))
        self._ensure_prompts(list(prompts), progress)
        if self._stream.crop == "centre":
            pairs = ((self._table[row], flip) for row, flip in sorted(visits))
            ids = [_image_row(image, flip) for pair, flip in pairs for image in (pair.winner, pair.loser)]
            self._ensure_images(ids, progress)
        self._ready = positions

    def samples(self, step: int, rank: int = 0, world: int = 1) -> list[Sample]:
        """What process `rank` of `world` is shown in update `step` (counted from 0), in the order of the
        stream."""
        share, rest = divmod(self._stream.batch, world)
        if rest:
            raise ValueError(f"{self._stream.batch} pairs can't be dealt to {world} processes")
        first = step * self._stream.batch + rank * share
        return self._samples(range(first, first + share))

    def batches(self, step: int, rank: int = 0, world: int = 1) -> Iterator[PairBatch]:
        """The micro-batches of an update for one process. Tensors are on the denoiser's device, `position` is
        not.

        Promise: the samples of an update, and every number about each, are the same for any `micro_batch` and
        `world`."""
        samples = self.samples(step, rank, world)
        size = self._stream.micro_batch or len(samples)
        for start in range(0, len(samples), size):
            yield self._batch(samples[start : start + size])

    def _samples(self, positions: range) -> list[Sample]:
        stream, draws = self._stream, PositionDraws(self._stream.seed, positions)
        nothing = [1.0] * len(positions)
        dropped = draws.uniform("prompt-dropout").tolist() if stream.prompt_dropout else nothing
        mirror = draws.uniform("flip").tolist() if stream.flip else nothing
        centre = [0.5] * len(positions)
        across, down = (
            draws.uniform(name).tolist() if stream.crop == "random" else centre
            for name in ("crop-x", "crop-y")
        )
        samples = []
        for i, row in enumerate(self._order(positions)):
            pair = self._table[row]
            prompt = "" if dropped[i] < stream.prompt_dropout else pair.prompt
            placement = Placement(crop=(across[i], down[i]), flip=mirror[i] < 0.5)
            samples.append(Sample(positions[i], row, pair, prompt, placement))
        return samples

    def _batch(self, samples: Sequence[Sample]) -> PairBatch:
        device = self._denoiser.device
        images = dict(self._latents(samples))
        mean, std = images.pop("mean").to(device), images.pop("std").to(device)
        conditioning = Conditioning(self._embeddings(samples)).doubled().merged(images).to(device)
        return PairBatch(
            ids=[sample.pair.id for sample in samples],
            position=torch.tensor([sample.position for sample in samples]),
            mean=mean,
            std=std,
            conditioning=conditioning,
            p=self._p[[sample.row for sample in samples]].float().to(device),
        )

    def _latents(self, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
        """`mean`, `std` and what else belongs to images, `[2B, ...]`, winners first."""
        images = [sample.pair.winner for sample in samples] + [sample.pair.loser for sample in samples]
        placements = [sample.placement for sample in samples] * 2
        if self._stream.crop == "random":
            return self._encode(images, placements)
        ids = [_image_row(image, placed.flip) for image, placed in zip(images, placements, strict=True)]
        if not self._prepared(samples):
            self._ensure_images(ids, None)
        return self._images.rows(ids)

    def _embeddings(self, samples: Sequence[Sample]) -> Mapping[str, Tensor]:
        """Rows of conditioning, `[B, ...]`."""
        if not self._prepared(samples):
            self._ensure_prompts([sample.prompt for sample in samples], None)
        return self._prompts.rows([_prompt_row(sample.prompt) for sample in samples])

    def _prepared(self, samples: Sequence[Sample]) -> bool:
        return samples[0].position in self._ready and samples[-1].position in self._ready

    def _ensure_images(self, ids: Sequence[str], progress: Progress | None) -> None:
        def compute(names: Sequence[str]) -> Mapping[str, Tensor]:
            parts = [name.rsplit("/", 1) for name in names]
            return self._encode(
                [image for image, _ in parts], [Placement(flip=flip == "1") for _, flip in parts]
            )

        self._images.ensure(
            ids, compute, batch=self._encode_batch, progress=progress, label="encoding images"
        )

    def _ensure_prompts(self, prompts: Sequence[str], progress: Progress | None) -> None:
        texts = {_prompt_row(prompt): prompt for prompt in prompts}

        def compute(names: Sequence[str]) -> Mapping[str, Tensor]:
            with torch.no_grad():
                return self._denoiser.encode_prompts([texts[name] for name in names])

        self._prompts.ensure(
            list(texts), compute, batch=self._encode_batch, progress=progress, label="encoding prompts"
        )

    def _encode(self, images: Sequence[str], placements: Sequence[Placement]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return self._denoiser.encode_pictures(
                [self._table.picture(image) for image in images], placements
            )


def _image_row(image: str, flip: bool) -> str:
    return f"{image}/{int(flip)}"


@lru_cache(maxsize=10_000)
def _prompt_row(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]
