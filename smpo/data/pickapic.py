"""Preference pairs in the schema of Pick-a-Pic v2, from parquet files, as a `PairTable`.

What the table holds in memory is one row of numbers a pair, and the ids of its images: about 150 bytes a
pair, not the 300 GB of pictures. Every row that isn't used is counted by reason, and every defect is listed
with file and row."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smpo.data.index import DEFECTS, Progress, Verify, index_file
from smpo.data.parquet import PictureBytes, count_rows, file_digest, find_files
from smpo.data.votes import Ballot, Counted, Ties, Votes
from smpo.errors import RunError
from smpo.imaging import BrokenImage, decode
from smpo.kinds import Pair

__all__ = ["PickapicTable", "count_rows", "read_pickapic"]

SCHEMA = 1
"""Part of the digest: raise it when the same files would give other pairs."""


class PickapicTable:
    """Pairs in storage order (`smpo.kinds.PairTable`). Made by `read_pickapic`."""

    def __init__(self, counted: Counted, pictures: PictureBytes, report: Mapping[str, Any]) -> None:
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
        winner, loser = (columns.images[side[index]].decode() for side in (columns.winner, columns.loser))
        return Pair(
            id=pair_id(prompt, winner, loser, int(columns.repeat[index])),
            prompt=prompt,
            winner=winner,
            loser=loser,
            share=float(columns.share[index]),
            votes=int(columns.votes[index]),
        )

    def picture(self, image_id: str) -> Image.Image:
        """Decoded from the file. Raises `KeyError` for a foreign id, `RunError` for an image that turns out
        broken."""
        place = np.searchsorted(self._counted.images, image_id.encode(), sorter=self._by_id)
        number = self._by_id[min(int(place), len(self._by_id) - 1)]
        if self._counted.images[number].decode() != image_id:
            raise KeyError(image_id)
        file, group, side, row = (int(value) for value in self._counted.places[number])
        try:
            return decode(self._pictures.read(file, group, side, row))
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


def read_pickapic(
    path: Path,
    *,
    split: str | None = None,
    ties: Ties = "drop",
    votes: Votes = "merge",
    limit: int | None = None,
    verify: Verify = "full",
    max_broken: float = 0.2,
    cache: Path | None = None,
    report: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> PickapicTable:
    """Read, check, count and merge.

    `limit` keeps the first so many pairs and stops reading there. `verify="lazy"` decodes images only when
    they are used. `cache` is the folder that remembers what each file holds. `report` receives counts and
    every defect, as JSON, also when reading fails. Raises `MachineError` when the data isn't there or isn't
    of this schema, `RunError` when more than `max_broken` of the rows are defective or no pair is left."""
    began = time.monotonic()
    files = find_files(path, split)
    ballot = Ballot(ties=ties, votes=votes, limit=limit)
    defects: list[dict[str, Any]] = []
    read: list[dict[str, Any]] = []
    for row in _rows(files, path, read, verify=verify, cache=cache, progress=progress, workers=workers):
        here = read[-1]
        if row["defect"]:
            where = {"file": here["name"], "row": here["rows"], "reason": row["defect"]}
            defects.append({**where, "detail": row["detail"]})
        else:
            images, place = (row["image_0"], row["image_1"]), (len(read) - 1, row["group"], row["row"])
            if not ballot.cast(row["caption"], images, row["label_0"], place):
                break
        here["rows"] += 1

    counted = ballot.count()
    facts = dict(counted.facts)
    dropped = Counter(defect["reason"] for defect in defects)
    facts["dropped"] = {**dict(dropped.most_common()), **facts["dropped"]}
    summary = {
        "rows": sum(entry["rows"] for entry in read),
        **facts,
        "digest": _digest(counted),
        "settings": {"split": split, "ties": ties, "votes": votes, "limit": limit, "verify": verify},
        "files": read,
        "seconds": round(time.monotonic() - began, 3),
    }
    if report is not None:
        _write(report, {**summary, "defects": defects})
    _refuse(summary, dropped, max_broken, report)
    return PickapicTable(counted, PictureBytes(files), summary)


def _rows(
    files: Sequence[Path],
    root: Path,
    read: list[dict[str, Any]],
    *,
    verify: Verify,
    cache: Path | None,
    progress: Progress | None,
    workers: int | None,
) -> Iterator[dict[str, Any]]:
    """All rows of the index, file after file; `read` gets an entry when a file is begun."""
    workers = workers or min(8, os.cpu_count() or 1)
    for file in files:
        digest = file_digest(file)
        read.append({"name": _name(file, root), "rows": 0, "sha256": digest})
        for batch in index_file(file, digest, verify=verify, cache=cache, progress=progress, workers=workers):
            yield from batch.to_pylist()


def _refuse(
    summary: Mapping[str, Any], dropped: Counter[str], max_broken: float, report: Path | None
) -> None:
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
        why = (
            ", ".join(f"{reason} {number:,}" for reason, number in summary["dropped"].items())
            or "no rows at all"
        )
        raise RunError(
            f"no pair is left of {rows:,} rows ({why})", help="with `ties: keep`, ties are pairs too"
        )


def _write(report: Path, content: Mapping[str, Any]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    unfinished = report.with_name(f"{report.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(report)


def _name(file: Path, root: Path) -> str:
    """Within the data folder: reports travel, machines' paths needn't."""
    return file.relative_to(root).as_posix() if file != root else file.name


def _digest(counted: Counted) -> str:
    digest = hashlib.sha256(f"pairs/{SCHEMA}\n".encode())
    prompts = counted.prompts.to_pylist()
    columns = (counted.prompt, counted.winner, counted.loser, counted.share, counted.votes)
    for prompt, winner, loser, share, votes in zip(*(column.tolist() for column in columns), strict=True):
        images = counted.images[winner] + b" " + counted.images[loser]
        digest.update(images + f" {share!r} {votes} {prompts[prompt]!r}\n".encode())
    return digest.hexdigest()
