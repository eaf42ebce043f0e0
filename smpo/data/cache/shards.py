"""Rows of named tensors in files that are only ever added, and an index of the rows' places.

Shards are safetensors, mapped rather than read. The index is sqlite and knows what size and digest each shard
had; a shard that no longer agrees is thrown away, so that its rows are missing and not wrong."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor

from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.errors import RunError

__all__ = ["ShardGone", "Shards"]

OPEN_SHARDS = 256
"""Shards that stay mapped. A mapping costs address space; the system keeps in memory what is in use."""

SMALL_SHARDS = 16
"""So many shards of less than a quarter of the usual size are put together."""

KNOWN_ROWS = 500_000
"""Places of rows that are kept in memory."""

# AUTOINCREMENT: the number of a discarded shard must not become another shard's while a process still
# has it in memory.
_TABLES = """
CREATE TABLE IF NOT EXISTS shard (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS place (
    id TEXT PRIMARY KEY, shard INTEGER NOT NULL, row INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS place_shard ON place (shard);
CREATE TABLE IF NOT EXISTS layout (name TEXT PRIMARY KEY, shape TEXT NOT NULL) WITHOUT ROWID;
"""

log = logging.getLogger(__name__)


class ShardGone(Exception):
    """This process's copy of the index is older than another process's changes."""


class Shards:
    """The files of one folder. Readers need no lock; who fills it holds `lock`, for hours perhaps, and with it the
    others of its team. Files and index change under `writing`, which this class takes by itself and briefly."""

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lock = FileLock(folder / "lock")
        self.writing = FileLock(folder / "writing")
        self._key = key
        self._places: dict[str, tuple[int, int]] = {}
        self._mapped: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._sound: set[int] = set()
        # Not `lock`: a reader shouldn't wait for a process that encodes for hours.
        with FileLock(folder / "opening"), closing(self._connect()) as index:
            # No write-ahead log: with one, reading writes a file too, which a full disk refuses in the middle of
            # training; and it doesn't work on the file systems that several machines share.
            with suppress(sqlite3.OperationalError):  # an index of before that others are using: another time
                index.execute("PRAGMA journal_mode=DELETE")
            index.executescript(_TABLES)
            if not (folder / "key.txt").exists():
                (folder / "key.txt").write_text(key + "\n", encoding="utf-8")

    def locate(self, ids: Sequence[str]) -> list[tuple[int, int] | None]:
        """Shard and row of each, None where there is none."""
        unknown = [name for name in ids if name not in self._places]
        if unknown:
            if len(self._places) + len(unknown) > KNOWN_ROWS:
                self._places.clear()
                unknown = list(ids)
            with closing(self._connect()) as index:
                for name in unknown:
                    found = index.execute("SELECT shard, row FROM place WHERE id = ?", (name,)).fetchone()
                    if found is not None:
                        self._places[name] = found
        return [self._places.get(name) for name in ids]

    def forget(self) -> None:
        """Look everything up anew."""
        self._places.clear()

    def tensors(self, shard: int) -> Mapping[str, Tensor]:
        """All rows of a shard, mapped. Raises `ShardGone`."""
        if shard not in self._mapped:
            file = self._file(shard)
            if file is None or not file[0].exists():
                raise ShardGone
            self._mapped[shard] = load_file(file[0])
            if len(self._mapped) > OPEN_SHARDS:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(shard)
        return self._mapped[shard]

    def check(self, ids: Sequence[str], team: WorkSplit = SINGLE_PROCESS) -> None:
        """Compare the shards of these ids with the index, each once, and discard the damaged ones. A team deals them
        out: all of a large cache is read here."""
        shards = {place[0] for place in self.locate(ids) if place is not None}
        for shard in sorted(shards - self._sound):
            if team.owns(shard) and not self._is_sound(shard):
                self._discard(shard)
        team.barrier()
        if team.shares > 1:
            self.forget()  # what others have discarded

    def append(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """One more shard: first the file, whole, then its rows in the index. A kill in between leaves an
        unused file.

        Raises `RunError` when names, types or shapes of the tensors aren't those of the earlier shards, and when the
        disk refuses.
        """
        with self.writing:
            self._append(names, tensors)

    def _append(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        layout = {name: f"{tensor.dtype} {list(tensor.shape[1:])}" for name, tensor in tensors.items()}
        with closing(self._connect()) as index:
            known = dict(index.execute("SELECT name, shape FROM layout"))
        if known and known != layout:
            raise RunError(
                f"the encoder {self._key} used to give {known} and now gives {layout}",
                help=f"its encoder_key must change when its output does; or delete {self.folder}",
            )
        for left in self.folder.glob("*.tmp"):  # by writers that were killed: we hold `writing`
            left.unlink()
        content = save(dict(tensors), metadata={"key": self._key, "ids": json.dumps(list(names))})
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{digest[:24]}.safetensors"
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with unfinished.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise RunError(
                f"the cache {self.folder} can't take {len(content) / 1e6:,.1f} MB more: {error.strerror or error}",
                help="make room there, or choose another folder with `--set runtime.cache=FOLDER`; what was encoded "
                "before is kept, and isn't encoded again",
            ) from error
        with closing(self._connect()) as index, index:
            index.executemany("INSERT OR REPLACE INTO layout VALUES (?, ?)", layout.items())
            shard = index.execute(
                "INSERT INTO shard (name, size, sha256) VALUES (?, ?, ?)", (path.name, len(content), digest)
            ).lastrowid
            assert shard is not None
            index.executemany(
                "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
                [(name, shard, row) for row, name in enumerate(names)],
            )
        self._sound.add(shard)

    def merge(self, largest: int) -> None:
        """Put small shards together, up to `largest` bytes each; the caller holds `lock`.

        First the new file with all its rows, then the old ones go: a kill in between leaves shards without rows, which
        go the next time. Rows of a damaged one are missing afterwards, not wrong."""
        with closing(self._connect()) as index:
            small = index.execute("SELECT id, size FROM shard WHERE size < ? ORDER BY id", (largest // 4,)).fetchall()
        if len(small) < SMALL_SHARDS:
            return
        group: list[int] = []
        size = 0
        for number, bytes_ in [*small, (-1, largest)]:
            if size + bytes_ > largest:
                with self.writing:
                    self._put_together(group)
                group, size = [], 0
            group.append(number)
            size += bytes_

    def _put_together(self, shards: Sequence[int]) -> None:
        names: list[str] = []
        parts: list[dict[str, Tensor]] = []
        for shard in shards:
            if not self._is_sound(shard):
                self._discard(shard)
                continue
            with closing(self._connect()) as index:
                found = index.execute("SELECT id, row FROM place WHERE shard = ? ORDER BY row", (shard,)).fetchall()
            if found:
                rows = torch.tensor([row for _, row in found])
                parts.append({name: tensor[rows] for name, tensor in self.tensors(shard).items()})
                names += [name for name, _ in found]
        if parts:
            self.append(names, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        for shard in shards:
            self._remove(shard)

    def _is_sound(self, shard: int) -> bool:
        file = self._file(shard)
        if file is None or not file[0].exists() or file[0].stat().st_size != file[1]:
            return False
        with file[0].open("rb") as stream:
            sound = hashlib.file_digest(stream, "sha256").hexdigest() == file[2]
        if sound:
            self._sound.add(shard)
        return sound

    def _discard(self, shard: int) -> None:
        with self.writing, closing(self._connect()) as index:
            file = self._file(shard)
            if file is not None:  # else another process was quicker, and a new shard may have the same name
                log.warning("%s is damaged or gone; its rows are encoded again", file[0])
                file[0].unlink(missing_ok=True)
                with index:
                    index.execute("DELETE FROM place WHERE shard = ?", (shard,))
                    index.execute("DELETE FROM shard WHERE id = ?", (shard,))
        self._forget(shard)

    def _remove(self, shard: int) -> None:
        """A shard whose rows are elsewhere by now."""
        with closing(self._connect()) as index:
            file = self._file(shard)
            with index:
                index.execute("DELETE FROM shard WHERE id = ?", (shard,))
            others = (
                index.execute("SELECT count(*) FROM shard WHERE name = ?", (file[0].name,)).fetchone() if file else (1,)
            )
        if file is not None and not others[0]:
            file[0].unlink(missing_ok=True)
        self._forget(shard)

    def _forget(self, shard: int) -> None:
        self._mapped.pop(shard, None)
        self._places = {name: place for name, place in self._places.items() if place[0] != shard}

    def _file(self, shard: int) -> tuple[Path, int, str] | None:
        """Path, size and digest."""
        with closing(self._connect()) as index:
            found = index.execute("SELECT name, size, sha256 FROM shard WHERE id = ?", (shard,)).fetchone()
        return None if found is None else (self.folder / found[0], found[1], found[2])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "index.sqlite", timeout=60)
