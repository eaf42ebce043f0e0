"""Preference pairs out of parquet columns: Pick-a-Pic's schema, and those that differ from it in names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smpo.data.sources.parquet import (
    OPTIONAL,
    REQUIRED,
    WHOLE,
    PictureBytes,
    check_pictures,
    count_rows,
    find_files,
    image_column,
    missing_files,
    open_file,
)
from smpo.data.sources.source import Claim, Part, Source, Stated, file_digest, of_labels, part_name
from smpo.errors import readable

if TYPE_CHECKING:
    pass

__all__ = ["ParquetPairs", "State", "count_rows", "pickapic_source", "stated_by_pickapic"]

BATCH = 64
"""Rows whose bytes are in memory at once: at 2 x 300 kB a row, about 40 MB."""

State = Callable[[Mapping[str, Any]], Stated]
"""What a row's columns say about its two pictures."""


class ParquetPairs(Source):
    """A row a statement: a prompt's column, two columns of pictures, and columns that `state` understands."""

    def __init__(
        self,
        path: Path | str,
        *,
        prompt: str,
        images: tuple[str, str],
        needed: tuple[str, ...],
        optional: tuple[str, ...],
        state: State,
        rules: str,
        split: str | None = None,
    ) -> None:
        self._root, self._files = path, find_files(path, split)
        self._prompt, self._images, self._state = prompt, images, state
        self._wanted = (prompt, *images, *needed)
        self._optional = optional
        self.pictures = PictureBytes(self._files, images)
        self.reading = f"{rules} {json.dumps([self._wanted, optional])}"
        self.settings = {"split": split}
        self.missing_files = missing_files(self._files)

    def look(self) -> None:
        first = self._files[0]
        check_pictures(first, open_file(first, self._wanted).schema_arrow, self._images)

    def parts(self) -> Iterator[Part]:
        for file in self._files:
            yield Part(part_name(file, self._root), file_digest(file))

    def rows(self, part: int) -> int:
        return int(open_file(self._files[part], self._wanted).metadata.num_rows)

    def claims(self, part: int) -> Iterator[list[Claim]]:
        opened = open_file(self._files[part], self._wanted)
        check_pictures(self._files[part], opened.schema_arrow, self._images)
        columns = [*self._wanted, *(name for name in self._optional if name in opened.schema_arrow.names)]
        number = 0
        for group in range(opened.num_row_groups):
            row = 0
            batches = opened.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns)
            while True:
                with readable("the rows", self._files[part], WHOLE):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield self._claims(batch, group, row, number)
                row += batch.num_rows
                number += batch.num_rows

    def _claims(self, batch: pa.RecordBatch, group: int, start: int, number: int) -> list[Claim]:
        first, second = (image_column(batch.column(name)).to_pylist() for name in self._images)
        light = batch.drop_columns(list(dict.fromkeys(self._images))).to_pylist()
        return [
            Claim(
                row=number + i,
                caption=values[self._prompt],
                pictures=(first[i] or b"", second[i] or b""),
                places=((group, 0, start + i), (group, 1, start + i)),
                stated=self._state(values),
            )
            for i, values in enumerate(light)
        ]


def stated_by_pickapic(values: Mapping[str, Any]) -> Stated:
    """`label_0` and `label_1`, checked against `best_image_uid` where there is one."""
    stated = of_labels(values["label_0"], values["label_1"])
    # Ties have has_label False and labels of a half each, so that column alone marks no defect.
    if stated.share is None:
        told = {name: values.get(name) for name in ("label_0", "label_1", "has_label")}
        return Stated(None, defect=stated.defect, detail=", ".join(f"{k} {v}" for k, v in told.items()))
    best, uids = values.get("best_image_uid"), [values.get("image_0_uid"), values.get("image_1_uid")]
    if best and best in uids and uids[0] != uids[1]:
        named = uids.index(best)
        if (stated.share, 1 - stated.share)[named] < 0.5:
            detail = f"best_image_uid names image {named}, the labels the other"
            return Stated(None, defect="contradictory_labels", detail=detail)
    return stated


def pickapic_source(path: Path | str, split: str | None = None) -> ParquetPairs:
    """Parquet files in the schema of Pick-a-Pic v1 and v2."""
    return ParquetPairs(
        path,
        prompt="caption",
        images=("jpg_0", "jpg_1"),
        needed=REQUIRED[3:],
        optional=OPTIONAL,
        state=stated_by_pickapic,
        rules="pickapic",
        split=split,
    )
