"""Small pieces of a micro-batch: which samples go together, what a picture is called, and how rows become float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from smpo.data.stream.buckets import Size
from smpo.data.stream.encodings import image_row, prompt_row
from smpo.data.stream.sample import Sample, Shown

__all__ = ["full", "of_one_size", "picture_name"]


def full(rows: Tensor) -> Tensor:
    """Rows that were stored by halves, in float32."""
    return rows.float() if rows.dtype == torch.float16 else rows


def of_one_size(samples: Sequence[Sample], pairs: int) -> Iterator[list[Sample]]:
    """Portions of at most so many samples, all of one size, in the order in which sizes are met."""
    groups: dict[Size | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.placement.size].append(sample)
    for group in groups.values():
        for start in range(0, len(group), pairs):
            yield group[start : start + pairs]


def picture_name(one: Shown) -> str:
    """An image as it is shown, with its prompt."""
    size = one.placement.size
    cut = "" if size is None else f"/{size[0]}x{size[1]}"
    return f"{image_row(one.image, one.placement.flip)}{cut}/{prompt_row(one.prompt)}"
