"""What one part of a source holds, row by row, without its pictures: content ids, labels, and what is wrong.

Reading the bytes, naming them and decoding them is the slow part, and it depends on the files alone. So its
result is an index that is kept beside the caches, under the part's digest; policies (ties, merging, limits)
are applied to the index afterwards and cost seconds. The official preprocessing decodes nothing and dies of
the first broken image (method 2b, D8); its loader then drops single images, which shifts all later ones into
foreign pairs (D7). Here a defect condemns the row, both images and the vote together."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from smpo.data.progress import Progress
from smpo.data.sources.source import Claim, Part, Source
from smpo.data.sources.text_files import HALF, unencodable
from smpo.imaging import BrokenImage, content_id, decode

__all__ = ["CHOICES", "DEFECTS", "LIGHT", "PRINT", "Verify", "fingerprint", "index_part"]

Verify = Literal["full", "lazy"]

VERSION = 3
"""Part of the cache's name. Raise it when a verdict changes."""

PRINT = 8
"""Side of the tiny pictures by which lookalikes are found."""

ROWS = 4096
"""Rows of an index that are in memory at once, and in a row group of its file."""

REMEMBERED = 50_000
"""Verdicts on images that are kept while a part is read."""

DEFECTS = {
    "empty_image": "no image bytes",
    "missing_image": "an image file that isn't there",
    "foreign_path": "an image path that leaves the data's folder",
    "broken_image": "an image that can't be decoded",
    "same_image": "the same image twice",
    "empty_caption": "no caption",
    "broken_text": "a caption or path that is not UTF-8",
    "no_label": "no label",
    "contradictory_labels": "labels that contradict each other",
}
"""Why a row can't be used, in words."""

CHOICES = {"low_confidence": "less confidence than asked for"}
"""Why a sound row isn't wanted."""

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        *((f"{name}{side}", pa.int64()) for side in (0, 1) for name in "abc"),  # places
        ("caption", pa.string()),
        ("image_0", pa.string()),
        ("image_1", pa.string()),
        ("share", pa.float64()),
        ("votes", pa.int32()),
        ("defect", pa.string()),
        ("detail", pa.string()),
        *((f"{name}_{side}", pa.int32()) for side in (0, 1) for name in ("width", "height")),
        ("print_0", pa.binary()),
        ("print_1", pa.binary()),
    ]
)

LIGHT = [name for name in _SCHEMA.names if not name.startswith("print")]
"""What a table needs; the rest is for the audit."""


@dataclass(frozen=True)
class _Verdict:
    """On one image: why it is broken, or its size and print."""

    reason: str = ""
    width: int | None = None
    height: int | None = None
    print: bytes | None = None


def index_part(
    source: Source, number: int, part: Part, *, verify: Verify, cache: Path | None, progress: Progress | None,
    workers: int, columns: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """The index of a part, in storage order, from the cache or by reading it; only these columns, all unless told.

    `verify="full"` decodes every image; `lazy` trusts them until they are used. `share` is the share of this
    row's votes that went to image 0. The index is written as it grows and kept once the whole part has been read; a
    caller may stop earlier. No more than some thousand rows of it are in memory."""
    chosen = list(columns or _SCHEMA.names)
    kept = None
    if cache is not None:
        name = hashlib.sha256(f"{part.digest} {source.reading}".encode()).hexdigest()[:32]
        kept = cache / "pairs" / f"{name}-{verify}-v{VERSION}.parquet"
        if _sound(kept):
            yield from _batches(kept, chosen)
            return
    total, done = source.rows(number), 0
    with _Keeper(kept) as keeper:
        for batch in _joined(_scan(source.claims(number), verify=verify, workers=workers)):
            keeper.write(batch)
            yield batch.select(chosen)
            done += batch.num_rows
            if progress is not None:
                progress(f"reading {part.name}", done, max(total, done))
        keeper.finish()


class _Keeper:
    """Writes an index beside its place and moves it there when it is whole."""

    def __init__(self, kept: Path | None) -> None:
        self._kept = kept
        self._writer: pq.ParquetWriter | None = None
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")

    def __enter__(self) -> _Keeper:
        if self._kept is not None:
            self._writer = pq.ParquetWriter(self._unfinished, _SCHEMA, compression="zstd", write_page_checksum=True)
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is not None:
            self._writer.write_batch(batch)

    def finish(self) -> None:
        if self._writer is not None and self._kept is not None:
            self._writer.close()
            self._unfinished.replace(self._kept)

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._unfinished.unlink(missing_ok=True)


def fingerprint(picture: Image.Image) -> bytes:
    """A tiny copy, `PRINT * PRINT * 3` bytes: encoded anew or scaled, a picture keeps it nearly."""
    return picture.resize((PRINT, PRINT), Image.Resampling.BOX).tobytes()


def _sound(kept: Path) -> bool:
    """Whether there is an index that can be read to its end. Its pages have checksums."""
    try:
        with _opened(kept) as file:
            sound: bool = file.schema_arrow.equals(_SCHEMA)
        for _ in _batches(kept, _SCHEMA.names) if sound else ():
            pass
    except (OSError, pa.ArrowException):
        return False
    return sound


def _batches(kept: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _opened(kept) as file:
        yield from file.iter_batches(batch_size=ROWS, columns=list(columns))


def _opened(kept: Path) -> pq.ParquetFile:
    return pq.ParquetFile(kept, page_checksum_verification=True, memory_map=False, pre_buffer=False)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A few thousand rows at a time, since small row groups cost more than their rows; fewer at first, so that a
    caller of few rows reads no more than twice as many."""
    waiting: list[pa.RecordBatch] = []
    done = 0
    for batch in batches:
        waiting.append(batch)
        rows = sum(one.num_rows for one in waiting)
        if rows >= min(ROWS, done):
            yield pa.concat_batches(waiting)
            waiting, done = [], done + rows
    if waiting:
        yield pa.concat_batches(waiting)


def _scan(claims: Iterable[list[Claim]], *, verify: Verify, workers: int) -> Iterator[pa.RecordBatch]:
    seen: dict[str, _Verdict] = {}  # by image id; the same image recurs in neighbouring rows
    with ThreadPoolExecutor(max_workers=workers) as pool:  # Pillow decodes without holding the interpreter
        for some in claims:
            yield _judged(some, verify, seen, pool)
            if len(seen) > REMEMBERED:
                seen.clear()


def _judged(claims: list[Claim], verify: Verify, seen: dict[str, _Verdict], pool: ThreadPoolExecutor) -> pa.RecordBatch:
    ids = [tuple(content_id(data) if data else "" for data in claim.pictures) for claim in claims]
    if verify == "full":
        fresh = {
            name: data
            for claim, names in zip(claims, ids, strict=True)
            for name, data in zip(names, claim.pictures, strict=True)
            if name and name not in seen
        }
        seen.update(zip(fresh, pool.map(_look, fresh.values()), strict=True))
    rows = []
    for claim, (first, second) in zip(claims, ids, strict=True):
        looks = [seen.get(name, _Verdict()) for name in (first, second)]
        defect, detail = _defect(claim, (first, second), (looks[0].reason, looks[1].reason))
        row = {
            "row": claim.row,
            "caption": claim.caption if isinstance(claim.caption, str) and not unencodable(claim.caption) else "",
            "image_0": first,
            "image_1": second,
            "share": claim.stated.share,
            "votes": claim.stated.votes,
            "defect": defect,
            "detail": detail,
        }
        for side, (place, look) in enumerate(zip(claim.places, looks, strict=True)):
            row |= {f"{name}{side}": value for name, value in zip("abc", place, strict=True)}
            row |= {f"width_{side}": look.width, f"height_{side}": look.height, f"print_{side}": look.print}
        rows.append(row)
    return pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


def _look(data: bytes) -> _Verdict:
    try:
        picture = decode(data)
    except BrokenImage as error:
        return _Verdict(reason=error.reason)
    return _Verdict(width=picture.width, height=picture.height, print=fingerprint(picture))


def _defect(claim: Claim, ids: tuple[str, str], broken: tuple[str, str]) -> tuple[str, str]:
    """`("", "")` for a sound row; the first defect and a word on it otherwise."""
    stated = claim.stated
    if stated.defect in {"missing_image", "foreign_path", "broken_text"}:
        return stated.defect, stated.detail
    for side, (image, reason) in enumerate(zip(ids, broken, strict=True)):
        if not image:
            return "empty_image", f"image {side}"
        if reason:
            return "broken_image", f"image {side}: {reason}"
    if ids[0] == ids[1]:
        return "same_image", ids[0]
    if isinstance(claim.caption, str) and unencodable(claim.caption):
        return "broken_text", HALF
    if not isinstance(claim.caption, str) or not _visible(claim.caption):
        return "empty_caption", ""
    return stated.defect, stated.detail


def _visible(caption: str) -> bool:
    """Whether there is anything to read: spaces of any width, marks of direction and control characters aren't."""
    return any(unicodedata.category(letter)[0] not in "CZ" for letter in caption)
