"""What one parquet file holds, row by row, without its pictures: content ids, labels, and what is wrong.

Reading the bytes, naming them and decoding them is the slow part, and it depends on the file alone. So its
result is an index that is kept beside the caches, under the file's digest; policies (ties, merging, limits)
are applied to the index afterwards and cost seconds. The official preprocessing decodes nothing and dies of
the first broken image (method 2b, D8); its loader then drops single images, which shifts all later ones into
foreign pairs (D7). Here a defect condemns the row, both images and the vote together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from smpo.data.parquet import OPTIONAL, REQUIRED, image_column, open_file
from smpo.imaging import BrokenImage, content_id, decode

__all__ = ["DEFECTS", "Progress", "Verify", "index_file"]

Verify = Literal["full", "lazy"]

VERSION = 1
"""Part of the cache's name. Raise it when a verdict changes."""

BATCH = 64
"""Rows whose bytes are in memory at once: at 2 x 300 kB a row, about 40 MB."""

DEFECTS = {
    "empty_image": "no image bytes",
    "broken_image": "an image that can't be decoded",
    "same_image": "the same image twice",
    "empty_caption": "no caption",
    "no_label": "no label",
    "contradictory_labels": "labels that don't add up to one vote",
}
"""Why a row is dropped, in words."""

_SCHEMA = pa.schema(
    [
        ("group", pa.int32()),
        ("row", pa.int32()),  # within the group
        ("caption", pa.string()),
        ("image_0", pa.string()),
        ("image_1", pa.string()),
        ("label_0", pa.float64()),
        ("defect", pa.string()),
        ("detail", pa.string()),
    ]
)


Progress = Callable[[str, int, int], None]
"""Told from time to time how far a long job is: what it does, how many are done, of how many."""


def index_file(
    file: Path, digest: str, *, verify: Verify, cache: Path | None, progress: Progress | None, workers: int
) -> Iterator[pa.RecordBatch]:
    """The index of a file, in storage order, from the cache or by reading it.

    `verify="full"` decodes every image; `lazy` trusts them until they are used. `label_0` is the share of
    this row's vote that went to image 0. The index is kept once the whole file has been read; a caller may
    stop earlier."""
    kept = cache / "pairs" / f"{digest[:32]}-{verify}-v{VERSION}.parquet" if cache is not None else None
    if kept is not None and (remembered := _remembered(kept)) is not None:
        yield from remembered
        return
    batches = []
    for batch in _scan(file, verify=verify, progress=progress, workers=workers):
        batches.append(batch)
        yield batch
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
        pq.write_table(pa.Table.from_batches(batches, _SCHEMA), unfinished, compression="zstd")
        unfinished.replace(kept)


def _remembered(kept: Path) -> list[pa.RecordBatch] | None:
    """The kept index, or None when there is none that can be read."""
    try:
        table = pq.read_table(kept)
    except (OSError, pa.ArrowException):
        return None
    batches: list[pa.RecordBatch] = table.to_batches(max_chunksize=4096)
    return batches if table.schema.equals(_SCHEMA) else None


def _scan(file: Path, *, verify: Verify, progress: Progress | None, workers: int) -> Iterator[pa.RecordBatch]:
    opened = open_file(file)
    columns = [*REQUIRED, *(name for name in OPTIONAL if name in opened.schema_arrow.names)]
    total, done = int(opened.metadata.num_rows), 0
    seen: dict[str, str] = {}  # image id -> why it is broken; the same image recurs in neighbouring rows
    with ThreadPoolExecutor(max_workers=workers) as pool:  # Pillow decodes without holding the interpreter
        for group in range(opened.num_row_groups):
            row = 0
            for batch in opened.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns):
                yield _judged(batch, group, row, verify, seen, pool)
                row += batch.num_rows
                done += batch.num_rows
                if progress is not None:
                    progress(f"reading {file.name}", done, total)


def _judged(
    batch: pa.RecordBatch,
    group: int,
    start: int,
    verify: Verify,
    seen: dict[str, str],
    pool: ThreadPoolExecutor,
) -> pa.RecordBatch:
    images = [image_column(batch.column(name)).to_pylist() for name in ("jpg_0", "jpg_1")]
    ids = [[content_id(data) if data else "" for data in side] for side in images]
    if verify == "full":
        fresh = {
            name: data
            for names, side in zip(ids, images, strict=True)
            for name, data in zip(names, side, strict=True)
            if name and name not in seen
        }
        seen.update(zip(fresh, pool.map(_why_broken, fresh.values()), strict=True))
    light = batch.drop_columns(["jpg_0", "jpg_1"]).to_pylist()
    rows = []
    for number, values in enumerate(light):
        image_0, image_1 = ids[0][number], ids[1][number]
        defect, detail = _defect(values, image_0, image_1, seen)
        rows.append(
            {
                "group": group,
                "row": start + number,
                "caption": values["caption"] if isinstance(values["caption"], str) else "",
                "image_0": image_0,
                "image_1": image_1,
                "label_0": None if defect else float(values["label_0"]),
                "defect": defect,
                "detail": detail,
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


def _why_broken(data: bytes) -> str:
    try:
        decode(data)
    except BrokenImage as error:
        return error.reason
    return ""


def _defect(values: dict[str, Any], image_0: str, image_1: str, broken: dict[str, str]) -> tuple[str, str]:
    """`("", "")` for a sound row; the first defect and a word on it otherwise."""
    for side, image in (("jpg_0", image_0), ("jpg_1", image_1)):
        if not image:
            return "empty_image", side
        if broken.get(image):
            return "broken_image", f"{side}: {broken[image]}"
    if image_0 == image_1:
        return "same_image", image_0
    caption = values["caption"]
    if not isinstance(caption, str) or not caption.strip():
        return "empty_caption", ""
    labels = [values["label_0"], values["label_1"]]
    if any(label is None or not math.isfinite(label) for label in labels):
        return "no_label", f"label_0 {labels[0]}, label_1 {labels[1]}, has_label {values.get('has_label')}"
    # Ties have has_label False and labels of a half each, so that column alone condemns nobody.
    if min(labels) < 0 or abs(sum(labels) - 1) > 1e-6:
        return "contradictory_labels", f"label_0 {labels[0]}, label_1 {labels[1]}"
    best, uids = values.get("best_image_uid"), [values.get("image_0_uid"), values.get("image_1_uid")]
    if best and best in uids and uids[0] != uids[1] and labels[uids.index(best)] < 0.5:
        return "contradictory_labels", f"best_image_uid names image {uids.index(best)}, the labels the other"
    return "", ""
