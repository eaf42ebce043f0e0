"""Preference pairs from any source, as a `PairTable`: defects dropped and listed, votes counted, pictures on request.

What the table holds in memory is numbers, some hundred bytes a pair, and the prompts; not the 300 GB of pictures. Every
row that isn't used is counted by reason, and every defect is listed with file and row."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from smpo.atomic import with_path
from smpo.data.pairs.index import CHOICES, DEFECTS, LIGHT, Verify, index_part
from smpo.data.pairs.votes import Counted, Ties, VoteCounter, Votes
from smpo.data.progress import Progress
from smpo.data.sources.source import Pictures, Source
from smpo.errors import RunError
from smpo.imaging import BrokenImage, content_id, decode
from smpo.kinds import Pair

__all__ = ["VoteTable", "indexed", "pair_id", "read_pairs"]

SCHEMA = 1
"""Part of the digest: raise it when the same files would give other pairs."""

PORTION = 10_000
"""Pairs that are converted to Python's own objects at once."""


class VoteTable:
    """Pairs in storage order (`smpo.kinds.PairTable`). Made by `read_pairs`."""

    threads: ClassVar[bool] = True

    def __init__(self, counted: Counted, pictures: Pictures, report: Mapping[str, Any]) -> None:
        self._counted = counted
        self._pictures = pictures
        self._by_id = np.argsort(counted.images, kind="stable")
        self.digest = str(report["digest"])
        self.report = report

    def __len__(self) -> int:
        return len(self._counted.prompt)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        columns = self._counted
        prompt = str(columns.prompts[int(columns.prompt[index])].as_py())
        winner, loser = (columns.images[side[index]].tobytes().hex() for side in (columns.winner, columns.loser))
        return Pair(
            id=pair_id(prompt, winner, loser, int(columns.repeat[index])),
            prompt=prompt,
            winner=winner,
            loser=loser,
            share=float(columns.share[index]),
            votes=int(columns.votes[index]),
        )

    def shares(self) -> np.ndarray[Any, Any]:
        """`[M]`: `share` of every pair, without a `Pair` for each."""
        return self._counted.share

    def log_aspects(self) -> np.ndarray[Any, Any]:
        """`[M]`: mean over both images of log(width / height). Raises `RunError` when sizes were never looked at."""
        columns = self._counted
        sizes = columns.sizes[np.stack([columns.winner, columns.loser])]  # [2, M, 2]
        if not sizes.all():
            raise RunError(
                "the sizes of the pictures aren't known: they were never decoded",
                help="load the pairs with `verify: full`",
            )
        means: np.ndarray[Any, Any] = np.log(sizes[..., 0] / sizes[..., 1]).mean(0)
        return means

    def picture(self, image_id: str) -> Image.Image:
        """Decoded from the file. Raises `KeyError` for a foreign id, `RunError` for an image that turns out
        broken or isn't the one that was counted."""
        try:
            wanted = np.void(bytes.fromhex(image_id))
        except ValueError:
            raise KeyError(image_id) from None
        images = self._counted.images
        place = np.searchsorted(images, wanted, sorter=self._by_id) if len(image_id) == 32 else 0
        number = self._by_id[min(int(place), len(self._by_id) - 1)]
        if images[number].tobytes().hex() != image_id:
            raise KeyError(image_id)
        part, a, b, c = (int(value) for value in self._counted.places[number])
        data = self._pictures.read(part, a, b, c)
        if content_id(data) != image_id:
            raise RunError(
                f"image {image_id} has changed on disk since the pairs were counted",
                help="run again: the data is then read anew",
            )
        try:
            return decode(data)
        except BrokenImage as error:
            raise RunError(
                f"image {image_id} can't be decoded: {error.reason}",
                help="load the pairs with `verify: full`: broken ones are then dropped and listed",
            ) from error


def pair_id(prompt: str, winner: str, loser: str, repeat: int = 0) -> str:
    """Names a pair by what was shown, not by who won: another vote may turn the pair round."""
    first, second = sorted((winner, loser))
    shown = hashlib.sha256(f"{first}\0{second}\0{prompt}".encode()).hexdigest()[:16]
    return f"{shown}#{repeat}" if repeat else shown


def read_pairs(  # noqa: PLR0913 -- settings of one call
    source: Source,
    *,
    ties: Ties = "drop",
    votes: Votes = "merge",
    limit: int | None = None,
    verify: Verify = "full",
    max_broken: float = 0.2,
    cache: Path | None = None,
    report: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> VoteTable:
    """Read, check, count and merge.

    `limit` keeps the first so many pairs and stops reading there. `verify="lazy"` decodes images only when
    they are used. `cache` is the folder of the files' indexes. `report` receives counts and
    every defect, as JSON, also when reading fails. Raises `MachineError` when the data isn't there or isn't
    of this schema, `RunError` when more than `max_broken` of the rows are defective or no pair is left."""
    began = time.monotonic()
    ballot = VoteCounter(ties=ties, votes=votes, limit=limit)
    defects: list[dict[str, Any]] = []
    unwanted: Counter[str] = Counter()
    read: list[dict[str, Any]] = []
    for batch in indexed(source, read, verify=verify, cache=cache, progress=progress, workers=workers):
        here = read[-1]
        sound = np.flatnonzero(pc.equal(batch.column("defect"), "").to_numpy(zero_copy_only=False))
        taken = ballot.add(batch.take(pa.array(sound)), len(read) - 1)
        end = batch.num_rows if taken == len(sound) else int(sound[taken])
        for row in batch.slice(0, end).filter(pc.not_equal(batch.column("defect").slice(0, end), "")).to_pylist():
            if row["defect"] in CHOICES:
                unwanted[row["defect"]] += 1
            else:
                where = {"file": here["name"], "row": row["row"], "reason": row["defect"]}
                defects.append({**where, "detail": row["detail"]})
        here["rows"] += end
        if end < batch.num_rows:
            break

    counted = ballot.count()
    facts = dict(counted.facts)
    dropped = Counter(defect["reason"] for defect in defects)
    facts["dropped"] = {**dict(dropped.most_common()), **unwanted, **facts["dropped"]}
    if source.missing_files:
        facts["missing_files"] = source.missing_files
    summary = {
        "rows": sum(entry["rows"] for entry in read),
        **facts,
        "digest": _digest(counted),
        "settings": {**source.settings, "ties": ties, "votes": votes, "limit": limit, "verify": verify},
        "files": read,
        "seconds": round(time.monotonic() - began, 3),
    }
    if report is not None:
        _write(report, {**summary, "defects": defects})
    _refuse(summary, dropped, max_broken, report)
    return VoteTable(counted, source.pictures, summary)


def indexed(
    source: Source,
    read: list[dict[str, Any]],
    *,
    verify: Verify = "full",
    cache: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    light: bool = True,
) -> Iterator[pa.RecordBatch]:
    """All rows of the index, some at a time, part after part; `read` gets an entry when a part is begun. `light` leaves
    out the prints of the pictures."""
    workers = workers or min(8, os.cpu_count() or 1)
    for number, part in enumerate(source.parts()):
        read.append({"name": part.name, "rows": 0, "sha256": part.digest})
        yield from index_part(
            source, number, part,
            verify=verify, cache=cache, progress=progress, workers=workers, columns=LIGHT if light else None,
        )  # fmt: skip


def _refuse(summary: Mapping[str, Any], dropped: Counter[str], max_broken: float, report: Path | None) -> None:
    """Raises `RunError` when too much is wrong to go on as if nothing were."""
    rows, broken = summary["rows"], dropped.total()
    listed = f"they are listed in {report}" if report else "pass a report path to have them listed"
    if broken > max_broken * rows:
        reasons = ", ".join(f"{number:,} x {DEFECTS[reason]}" for reason, number in dropped.most_common(3))
        raise RunError(
            f"{broken:,} of {rows:,} rows are unusable (max_broken allows {max_broken:.0%}): {reasons}",
            help=f"{listed}; mend the data, or raise max_broken",
        )
    if not summary["pairs"]:
        why = ", ".join(f"{reason} {number:,}" for reason, number in summary["dropped"].items()) or "no rows at all"
        raise RunError(f"no pair is left of {rows:,} rows ({why})", help="with `ties: keep`, ties are pairs too")


def _write(report: Path, content: Mapping[str, Any]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    unfinished = report.with_name(f"{report.name}.{os.getpid()}.tmp")
    with with_path(report):
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(report)


def _digest(counted: Counted) -> str:
    digest = hashlib.sha256(f"pairs/{SCHEMA}\n".encode())
    columns = (counted.prompt, counted.winner, counted.loser, counted.share, counted.votes)
    for start in range(0, len(counted.prompt), PORTION):
        some = [column[start : start + PORTION] for column in columns]
        prompts = counted.prompts.take(pa.array(some[0])).to_pylist()
        sides = [[one.tobytes().hex() for one in counted.images[side]] for side in some[1:3]]
        numbers = (column.tolist() for column in some[3:])
        for prompt, winner, loser, share, votes in zip(prompts, *sides, *numbers, strict=True):
            digest.update(f"{winner} {loser} {share!r} {votes} {prompt!r}\n".encode())
    return digest.hexdigest()
