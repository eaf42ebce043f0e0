"""The cache folder from outside: what lies in it, whether it is what was written, what can go.

Whatever is found damaged is only ever discarded, never mended: every entry can be computed again from its source. No
torch, so that looking is quick.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from smpo.errors import RunError

__all__ = ["KINDS", "Damage", "Entry", "clean", "discard", "entries", "orphans", "verify"]

KINDS = ("latents", "prompts", "scores", "pairs", "inverted", "referred")
"""Kinds of entries that can be deleted whole. Everything in them can be computed again."""

_ENCODED = ("latents", "prompts")
_WALKS = ("inverted", "referred")
"""What `runtime.reuse_inversions` keeps: a file a window of pairs, found by its name alone."""


@dataclass(frozen=True)
class Entry:
    """What lies under one key. `rows` are images, prompts, scores, rows of data, or (inverted, referred)
    groups of pairs; `key` identifies their source."""

    kind: str
    path: Path
    key: str
    rows: int
    size: int


@dataclass(frozen=True)
class Damage:
    """A file that isn't what was written, and how many rows are lost with it (None: unknown)."""

    kind: str
    path: Path
    what: str
    rows: int | None
    shard: int | None = None


def entries(cache: Path) -> list[Entry]:
    """Everything in a cache folder, by kind."""
    found = []
    for kind in _ENCODED:
        for folder in _stores(cache / kind):
            rows = _one(folder / "index.sqlite", "SELECT count(*) FROM place") or 0
            found.append(Entry(kind, folder, _key(folder), int(rows), _size(folder)))
    scores = cache / "scores.db"
    if scores.exists():
        counted = _all(scores, "SELECT scorer, count(*) FROM score GROUP BY scorer") or []
        total = sum(number for _, number in counted) or 1
        size = sum(part.stat().st_size for part in cache.glob("scores.db*"))
        for scorer, number in counted or [("unreadable", 0)]:
            found.append(
                Entry(
                    "scores",
                    scores,
                    str(scorer),
                    int(number),
                    round(size * (number / total if number else 1)),
                )
            )
    for file in sorted((cache / "pairs").glob("*.parquet")):
        found.append(Entry("pairs", file, file.stem, _parquet_rows(file) or 0, file.stat().st_size))
    for kind in _WALKS:
        if kept := _walks(cache, kind):
            size = sum(file.stat().st_size for file in kept)
            found.append(Entry(kind, cache / kind, "groups of pairs", len(kept), size))
    return found


def verify(cache: Path, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Damage]:
    """Compare every file with its index. Reads everything once."""
    for kind in _ENCODED:
        for folder in _stores(cache / kind):
            yield from _verify_store(kind, folder, progress)
    scores = cache / "scores.db"
    if scores.exists() and (told := _unsound(scores)):
        yield Damage("scores", scores, told, None)
    for file in sorted((cache / "pairs").glob("*.parquet")):
        if _parquet_rows(file, whole=True) is None:
            yield Damage("pairs", file, "can't be read", None)


def discard(damage: Damage) -> None:
    """Take what is damaged out of the index and off the disk, so that its rows are missing and not wrong."""
    if damage.kind in _ENCODED and damage.shard is not None:
        folder = damage.path.parent
        with _held(folder), closing(sqlite3.connect(folder / "index.sqlite", timeout=60)) as index, index:
            index.execute("DELETE FROM place WHERE shard = ?", (damage.shard,))
            index.execute("DELETE FROM shard WHERE id = ?", (damage.shard,))
        damage.path.unlink(missing_ok=True)
    elif damage.kind in _ENCODED:  # without its index the places of rows are lost
        with _held(damage.path):
            _empty(damage.path)
    else:
        for file in damage.path.parent.glob(f"{damage.path.name}*"):
            if not file.name.endswith(".lock"):
                file.unlink(missing_ok=True)


def orphans(cache: Path) -> list[Path]:
    """Files that no index mentions: what killed writers left behind."""
    found = []
    for kind in _ENCODED:
        for folder in _stores(cache / kind):
            named = _all(folder / "index.sqlite", "SELECT name FROM shard")
            if named is None:
                continue
            known = {name for (name,) in named}
            found += [file for file in sorted(folder.glob("*.safetensors")) if file.name not in known]
            found += sorted(folder.glob("*.tmp"))
    return [*found, *sorted((cache / "pairs").glob("*.tmp"))]


def clean(cache: Path, what: list[str]) -> tuple[int, int]:
    """Delete strays, and everything of the kinds in `what`. Returns files deleted and bytes set free.

    Raises `RunError` for an unknown kind, and where a run is writing just now."""
    if unknown := [kind for kind in what if kind not in KINDS]:
        raise RunError(f"there is no kind `{unknown[0]}` in a cache", help=f"the kinds are {', '.join(KINDS)}")
    files = size = 0
    for folder in [folder for kind in _ENCODED for folder in _stores(cache / kind)]:
        with _held(folder):
            for file in [file for file in orphans(cache) if file.parent == folder]:
                files, size = files + 1, size + file.stat().st_size
                file.unlink(missing_ok=True)
            if folder.parent.name in what:
                freed = _size(folder)
                files, size = files + _empty(folder), size + freed
    gone = [file for file in orphans(cache) if file.parent.name == "pairs"]
    gone += sorted((cache / "pairs").glob("*.parquet")) if "pairs" in what else []
    gone += [file for file in cache.glob("scores.db*") if not file.name.endswith(".lock")] if "scores" in what else []
    gone += [file for kind in _WALKS if kind in what for file in _walks(cache, kind)]
    # safetensors writes to a name of its own first, `.tmp` and six letters.
    gone += [file for kind in _WALKS for name in (".*.tmp", ".tmp*") for file in (cache / kind).glob(f"*/{name}")]
    for file in gone:
        if file.exists():
            files, size = files + 1, size + file.stat().st_size
            file.unlink()
    return files, size


# ------------------------------------------------------------------------------------------------------------


def _walks(cache: Path, kind: str) -> list[Path]:
    return sorted((cache / kind).glob("*/*.safetensors"))


def _verify_store(kind: str, folder: Path, progress: Callable[[str, int, int], None] | None) -> Iterator[Damage]:
    index = folder / "index.sqlite"
    told = _unsound(index)
    shards = _all(index, "SELECT id, name, size, sha256 FROM shard ORDER BY id")
    if told or shards is None:
        yield Damage(kind, folder, f"its index is damaged: {told or 'no tables'}", None)
        return
    for done, (number, name, size, digest) in enumerate(shards, 1):
        file = folder / name
        rows = int(_one(index, "SELECT count(*) FROM place WHERE shard = ?", number) or 0)
        if not file.exists():
            yield Damage(kind, file, "is gone", rows, number)
        elif file.stat().st_size != size:
            yield Damage(kind, file, f"has {file.stat().st_size:,} bytes instead of {size:,}", rows, number)
        elif _sha256(file) != digest:
            yield Damage(kind, file, "has other content than was written", rows, number)
        if progress is not None:
            progress(f"verifying {kind}", done, len(shards))
    orphans = _one(index, "SELECT count(*) FROM place WHERE shard NOT IN (SELECT id FROM shard)")
    if orphans:
        yield Damage(kind, folder, f"{orphans:,} rows lead to no file", int(orphans))


def _stores(folder: Path) -> list[Path]:
    return sorted(index.parent for index in folder.glob("*/index.sqlite"))


def _held(folder: Path) -> Any:
    """The writers' lock: nothing is deleted under a run that encodes."""
    lock = FileLock(folder / "lock", timeout=1)
    try:
        return lock.acquire()
    except Timeout as error:
        raise RunError(f"a run is writing to {folder}", help="wait for it to end, then try again") from error


def _empty(folder: Path) -> int:
    """Everything but the locks, whose holders may be waiting."""
    gone = [file for file in folder.iterdir() if file.name not in {"lock", "opening", "writing"}]
    for file in gone:
        # A link is deleted, never what it leads to.
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
    return len(gone)


def _key(folder: Path) -> str:
    try:
        return (folder / "key.txt").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # gone, or not UTF-8 any more
        return folder.name


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parquet_rows(file: Path, *, whole: bool = False) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_table(file).num_rows if whole else pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return None


def _unsound(file: Path) -> str:
    """sqlite's report on the file's integrity; empty for a sound file."""
    found = _all(file, "PRAGMA integrity_check(1)")
    if found is None:
        return "not a database"
    return "" if found == [("ok",)] else str(found[0][0])


def _all(file: Path, question: str, *values: Any) -> list[tuple[Any, ...]] | None:
    """Rows, or None where it isn't a database.

    A database in a folder that may only be read can't make the files beside it that it works with; that is no
    damage. It is opened as immutable.
    """
    for how in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, timeout=5)) as database:
                return database.execute(question, values).fetchall()
        except sqlite3.Error:
            if os.access(file.parent, os.W_OK):
                return None
    return None


def _one(file: Path, question: str, *values: Any) -> Any:
    found = _all(file, question, *values)
    return found[0][0] if found else None
