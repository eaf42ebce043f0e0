"""The micro-batches of an update, with everything that frozen networks can compute already computed.

Which pair stands at a position of the stream, whether it is mirrored, where it is cut and whether its prompt
is kept are functions of (seed, position). The two images of a pair share one placement; the official code
mirrors each by its own coin (`flip="apart"`), so that a preference may be learnt for a side (method 2b, D20).

With buckets, an update shows the very pairs that it would show without; only its micro-batches are put together anew,
each of pairs of one size. So no update is of one shape alone, and every pair is seen once an epoch, as ever.

Latents are kept as the moments of the posterior, so that a new one can be drawn at each visit (D31).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.pairs.single_images import Singles
from smpo.data.progress import Progress
from smpo.data.stream.buckets import Buckets, Size
from smpo.data.stream.collate import full, of_one_size, picture_name
from smpo.data.stream.coverage import (
    PORTION,
    Coverage,
    coverage_of_pairs,
    coverage_of_samples,
    sample_augmentations,
)
from smpo.data.stream.encodings import EncodedRows, image_row
from smpo.data.stream.order import Order, dealt
from smpo.data.stream.sample import Sample, Shown, Stream, both_sides
from smpo.imaging.transfer import to_device
from smpo.kinds import Conditioning, Denoiser, PairBatch, PairTable, Placement
from smpo.maths.draws import PositionDraws

__all__ = ["PairLoader", "Sample", "Shown", "Stream"]


class PairLoader:
    """Micro-batches by update number. Holds no place in the stream, so updates can be read in any order.

    `p` `[M]` is the smoothed probability of each pair of the table; `rows` are those that are trained on, all
    unless told. `cache` is the folder of encoded rows; `dtype` how large ones are stored there. `encode_batch`
    images or prompts are encoded at once. `buckets` gives pairs their sizes; without it all are squares."""

    def __init__(  # noqa: PLR0913 -- settings of one call
        self,
        table: PairTable,
        p: Tensor,
        denoiser: Denoiser,
        stream: Stream,
        *,
        cache: Path,
        encode_batch: int = 32,
        dtype: torch.dtype = torch.float32,
        rows: Sequence[int] | None = None,
        buckets: Buckets | None = None,
        workers: int = 0,
    ) -> None:
        if p.shape != (len(table),):
            raise ValueError(f"p has shape {tuple(p.shape)}, the table {len(table)} pairs")
        self._table, self._p, self._denoiser, self._stream = table, p, denoiser, stream
        self._rows: Sequence[int] = range(len(table)) if rows is None else rows
        self._order = Order(stream.seed, len(self._rows))
        share = stream.sampling.desirable
        self._singles = None if share is None else Singles(table, p, self._rows, share)
        self._buckets = buckets
        self._ready: list[range] = []  # positions that need no encoder any more
        self._encoded = EncodedRows(table, denoiser, cache, batch=encode_batch, dtype=dtype, workers=workers)

    def prepare(
        self,
        steps: int,
        *,
        start: int = 0,
        progress: Progress | None = None,
        team: WorkSplit = SINGLE_PROCESS,
    ) -> None:
        """Encode whatever updates `start .. steps-1` will visit, and only that, in the order of the table; with a
        `team`, together.

        Worth calling once, before training: afterwards no batch waits for an encoder, except for random crops, which
        are different at each visit."""
        positions = range(start * self._stream.batch, steps * self._stream.batch)
        visits = self._visits(positions)
        prompts = dict.fromkeys(visits.prompts)
        if self._stream.unconditional:
            prompts[""] = None
        self._encoded.ensure_prompts(list(prompts), progress, team)
        if self._stream.crop == "centre":
            for size, names in visits.images.items():
                self._encoded.ensure_images(names, size, progress, team)
        self._ready.append(positions)

    def visited(self, steps: int, *, start: int = 0) -> list[int]:
        """Rows of the table whose p updates `start .. steps-1` need, each once, in the table's order. Objectives that
        draw single images were given p of all pairs."""
        if self._singles is not None:
            return []
        places = self._order(range(start * self._stream.batch, steps * self._stream.batch))
        return sorted({self._rows[place] for place in places})

    def begin(self, steps: int, *, start: int = 0, team: WorkSplit = SINGLE_PROCESS) -> None:
        """Begin to decode what the next call, `prepare` with the same updates, will encode first. Collective. Needs
        p of the pairs that they visit."""
        if self._stream.crop == "centre":
            visits = self._visits(range(start * self._stream.batch, steps * self._stream.batch))
            for size, names in list(visits.images.items())[:1]:
                self._encoded.begin_images(names, size, team)

    def _visits(self, positions: range) -> Coverage:
        if self._singles is None:
            words, size = self._worded, self._size
            return coverage_of_pairs(positions, self._stream, self._order, self._table, self._rows, words, size)
        portions = (
            range(begin, min(begin + PORTION, positions.stop))
            for begin in range(positions.start, positions.stop, PORTION)
        )
        return coverage_of_samples(sample for some in portions for sample in self._samples(some))

    def samples(
        self, step: int, rank: int = 0, world: int = 1, cost: Callable[[range], Tensor] | None = None
    ) -> list[Sample]:
        """What process `rank` of `world` is shown in update `step` (counted from 0), in the order of the
        stream. With `cost` (of the samples at these positions), processes get equal shares of that too."""
        share, rest = divmod(self._stream.batch, world)
        if rest:
            raise ValueError(f"{self._stream.batch} pairs can't be dealt to {world} processes")
        first = step * self._stream.batch
        if cost is None or world == 1:
            return self._samples(range(first + rank * share, first + (rank + 1) * share))
        update = range(first, first + self._stream.batch)
        every = self._samples(update)
        return [every[i] for i in dealt(cost(update), rank, world)]

    def batches(
        self, step: int, rank: int = 0, world: int = 1, cost: Callable[[range], Tensor] | None = None, *,
        most: int | None = None,
    ) -> Iterator[PairBatch]:  # fmt: skip
        """The micro-batches of an update for one process, of `most` pairs if that is less than the stream's. Tensors
        are on the denoiser's device, `position` is not.

        Promise: the samples of an update, and every number about each, are the same for any `micro_batch`,
        `world` and `cost`."""
        samples = self.samples(step, rank, world, cost)
        for some in of_one_size(samples, min(self._stream.micro_batch or len(samples), most or len(samples))):
            yield self._batch(some)

    def fixed(self, rows: Sequence[int], size: int) -> Iterator[PairBatch]:
        """Pairs as they are, for looking at rather than training on: centred, upright, with their whole prompt.

        Positions count from 0 in the order of `rows`, `size` pairs a batch. Batches keep that order where `rows` are
        `together`."""
        samples = [
            Sample(i, pair, both_sides(pair, row, (pair.prompt, pair.prompt), (where, where)))
            for i, row in enumerate(rows)
            for pair, where in [(self._table[row], Placement(size=self._size(row)))]
        ]
        for some in of_one_size(samples, size):
            yield self._batch(some, plain=True)

    def together(self, rows: Sequence[int]) -> Sequence[int]:
        """These rows with those of one size behind one another; as they are where all have one."""
        groups: dict[Size | None, list[int]] = defaultdict(list)
        for row in rows:
            groups[self._size(row)].append(row)
        return rows if len(groups) < 2 else [row for group in groups.values() for row in group]

    def _samples(self, positions: range) -> list[Sample]:
        stream, draws = self._stream, PositionDraws(self._stream.seed, positions)
        coins = sample_augmentations(stream, draws)
        (mirror, other), dropped = (side.tolist() for side in coins.flips), coins.silent.tolist()
        centre = [0.5] * len(positions)
        across, down = (
            draws.uniform(name).tolist() if stream.crop == "random" else centre for name in ("crop-x", "crop-y")
        )
        samples = []
        single = self._singles.draw(draws) if self._singles is not None else None
        for i, place in enumerate(self._order(positions)):
            row = self._rows[place]
            crop, size = (across[i], down[i]), self._size(row) if single is None else None
            placements = Placement(crop, mirror[i], size), Placement(crop, other[i], size)
            silent = dropped[i]
            if single is not None:
                first, second = (
                    Shown(one.row, one.side, one.image, "" if silent else one.prompt, placement, one.desirable)
                    for one, placement in zip(single[i], placements, strict=True)
                )
                samples.append(Sample(positions[i], self._table[first.row], (first, second)))
                continue
            pair = self._table[row]
            prompts = ("", "") if silent else self._worded(pair.prompt, row)
            samples.append(Sample(positions[i], pair, both_sides(pair, row, prompts, placements)))
        return samples

    def _size(self, row: int) -> Size | None:
        return None if self._buckets is None else self._buckets.size(row)

    def _worded(self, prompt: str, row: int) -> tuple[str, str]:
        """The prompts of winner and loser."""
        prefixes, p = self._stream.sampling.prefixes, float(self._p[row])
        if prefixes is None or p == 0.5:
            return prompt, prompt
        assert p == p, "a prefix depends on a label that isn't known"
        good, bad = (prefix + prompt for prefix in prefixes)
        return (good, bad) if p > 0.5 else (bad, good)

    def _batch(self, samples: Sequence[Sample], *, plain: bool = False) -> PairBatch:
        device = self._denoiser.device
        shown = [sample.shown[side] for side in (0, 1) for sample in samples]
        images = dict(self._latents(samples, shown, plain=plain))
        images |= self._embeddings(samples, shown, plain=plain)
        told = {name: full(to_device(rows, device)) for name, rows in images.items()}  # moved as stored, cast once
        mean, std = told.pop("mean"), told.pop("std")
        conditioning = Conditioning(told)
        single = self._singles is not None and not plain
        p = self._p[[sample.row for sample in samples]].float()
        assert not p.isnan().any(), "a pair is shown whose label isn't known"
        return PairBatch(
            ids=[sample.pair.id for sample in samples],
            position=torch.tensor([sample.position for sample in samples]),
            mean=mean,
            std=std,
            conditioning=conditioning,
            p=to_device(torch.ones_like(p) if single else p, device),
            desirable=to_device(torch.tensor([one.desirable for one in shown]), device) if single else None,
            unconditional=self._unconditional(conditioning, len(shown)) if not plain else None,
            pictures=() if plain or self._stream.crop == "random" else [picture_name(one) for one in shown],
        )

    def _unconditional(self, conditioning: Conditioning, rows: int) -> Conditioning | None:
        """The same images with the empty prompt."""
        if not self._stream.unconditional:
            return None
        self._encoded.ensure_prompts([""])
        empty = self._encoded.prompts([""])
        moved = {name: full(to_device(tensor, self._denoiser.device)) for name, tensor in empty.items()}
        return conditioning.merged({name: one.expand(rows, *one.shape[1:]) for name, one in moved.items()})

    def _latents(self, samples: Sequence[Sample], shown: Sequence[Shown], *, plain: bool) -> Mapping[str, Tensor]:
        """`mean`, `std` and what else belongs to images, `[2B, ...]`, winners first."""
        if self._stream.crop == "random" and not plain:
            return self._encoded.encode([one.image for one in shown], [one.placement for one in shown])
        if plain or not self._prepared(samples):
            ids = [image_row(one.image, one.placement.flip) for one in shown]
            self._encoded.ensure_images(ids, shown[0].placement.size)
        return self._encoded.images(shown)

    def _embeddings(self, samples: Sequence[Sample], shown: Sequence[Shown], *, plain: bool) -> Mapping[str, Tensor]:
        """Rows of conditioning, `[2B, ...]`."""
        prompts = [one.prompt for one in shown]
        if plain or not self._prepared(samples):
            self._encoded.ensure_prompts(prompts)
        return self._encoded.prompts(prompts)

    def _prepared(self, samples: Sequence[Sample]) -> bool:
        return any(samples[0].position in ready and samples[-1].position in ready for ready in self._ready)
