"""Many micro-batches inverted together.

Samples of an inversion arrive one after another, and a micro-batch in which few are still on their way wastes most of
a pass (official code: one pair at a time). Over a whole update, those that make the same hop fill portions of the full
size until the last one. Gradients then flow micro-batch by micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from smpo.engine.step import InvertedBatch
from smpo.kinds import Conditioning, PairBatch

__all__ = ["joined", "parts", "windows"]


def windows(batches: Sequence[PairBatch], pairs: int | None) -> Iterator[PairBatch]:
    """Neighbouring micro-batches of one shape as one, of at most `pairs` pairs (but never less than one); None: all."""
    group: list[PairBatch] = []
    for batch in batches:
        full = pairs is not None and sum(map(len, group)) + len(batch) > pairs
        if group and (full or batch.mean.shape[1:] != group[0].mean.shape[1:]):
            yield joined(group)
            group = []
        group.append(batch)
    if group:
        yield joined(group)


def joined(batches: Sequence[PairBatch]) -> PairBatch:
    """One batch of several: winners of all of them first."""
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    return replace(
        first,
        ids=[name for batch in batches for name in batch.ids],
        position=torch.cat([batch.position for batch in batches]),
        mean=_sides([batch.mean for batch in batches]),
        std=_sides([batch.std for batch in batches]),
        conditioning=_conditioning([batch.conditioning for batch in batches]),
        p=torch.cat([batch.p for batch in batches]),
        desirable=None
        if first.desirable is None
        else _sides([b.desirable for b in batches if b.desirable is not None]),
        unconditional=None
        if first.unconditional is None
        else _conditioning([b.unconditional for b in batches if b.unconditional is not None]),
        pictures=[name for side in (0, 1) for b in batches for name in _half(b.pictures, side)],
    )


def parts(noisy: InvertedBatch, pairs: int) -> Iterator[InvertedBatch]:
    """Micro-batches of `pairs` pairs; the last may be smaller."""
    total = len(noisy.batch)
    if total <= pairs:
        yield noisy
        return
    for first in range(0, total, pairs):
        some = slice(first, first + pairs)

        def cut(x: Tensor, some: slice = some) -> Tensor:
            return x.reshape(2, -1, total, *x.shape[1:])[:, :, some].flatten(0, 2)

        desirable = noisy.batch.desirable
        batch = replace(
            noisy.batch,
            ids=noisy.batch.ids[some],
            position=noisy.batch.position[some],
            p=noisy.batch.p[some],
            desirable=None if desirable is None else cut(desirable),
        )
        told = Conditioning({name: cut(rows) for name, rows in noisy.conditioning.tensors.items()})
        yield replace(
            noisy,
            batch=batch,
            x0=cut(noisy.x0),
            x_t=cut(noisy.x_t),
            noise=cut(noisy.noise),
            t=cut(noisy.t),
            conditioning=told,
            key=noisy.key and f"{noisy.key}-{first}-{pairs}",
        )


def _half(names: Sequence[str], side: int) -> Sequence[str]:
    middle = len(names) // 2
    return names[middle:] if side else names[:middle]


def _sides(tensors: Sequence[Tensor]) -> Tensor:
    halves = [tensor.chunk(2) for tensor in tensors]
    return torch.cat([half[side] for side in (0, 1) for half in halves])


def _conditioning(several: Sequence[Conditioning]) -> Conditioning:
    return Conditioning({name: _sides([one.tensors[name] for one in several]) for name in several[0].tensors})
