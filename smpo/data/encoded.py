"""What frozen encoders made of images and prompts, filed by content: encoded once, read in every run.

A store holds rows of named tensors of fixed shapes under text ids. Rows live in safetensors shards that are
only ever added; an sqlite index says which row is where, and what size and digest each shard had. A shard
that no longer agrees is thrown away and its rows are computed again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor

from smpo.data.index import Progress
from smpo.errors import RunError

__all__ = ["Compute", "EncodedStore"]

Compute = Callable[[Sequence[str]], Mapping[str, Tensor]]
"""Rows for these ids: named tensors `[len(ids), ...]`."""

SMALL = 1024
"""Float rows with fewer elements are never halved: it would save nothing, and sizes in pixels need their
digits."""

OPEN_SHARDS = 256
"""Shards that stay mapped. A mapping costs address space; the system keeps in memory what is in use."""

KNOWN_ROWS = 500_000
"""Places of rows that are remembered rather than looked up."""

_TABLES = """
CREATE TABLE IF NOT EXISTS shard (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, sha256 TEXT NOT NULL
); CREATE TABLE IF NOT EXISTS place (id TEXT PRIMARY KEY, shard INTEGER NOT NULL, row INTEGER NOT NULL)
WITHOUT ROWID; CREATE INDEX IF NOT EXISTS place_shard ON place (shard); CREATE TABLE IF NOT EXISTS layout
(name TEXT PRIMARY KEY, shape TEXT NOT NULL) WITHOUT ROWID; """

log = logging.getLogger(__name__)


class EncodedStore:
    """Rows filed under `key` in a folder of their own below `folder`.

    `dtype` is how large float rows are stored (float32, or float16 for half the disk); they are read as
    float32. Any number of processes may read and fill a store at once. A kill loses what was encoded since
    the last shard: at most `shard_bytes`, or half a minute."""

    def __init__(
        self, folder: Path, key: str, *, dtype: torch.dtype = torch.float32, shard_bytes: int = 64 << 20
    ) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self.folder = folder / f"{name}-{'fp16' if dtype == torch.float16 else 'fp32'}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key, self._dtype, self._shard_bytes = key, dtype, shard_bytes
        self._lock = FileLock(self.folder / "lock")
        self._places: dict[str, tuple[int, int]] = {}
        self._shards: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._sound: set[int] = set()
        with self._lock, closing(self._connect()) as index:
            index.execute("PRAGMA journal_mode=WAL")
            index.executescript(_TABLES)
            (self.folder / "key.txt").write_text(key + "\n", encoding="utf-8")

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those that have no row, each once, in the given order."""
        return [name for name in dict.fromkeys(ids) if self._place(name) is None]

    def ensure(
        self,
        ids: Sequence[str],
        compute: Compute,
        *,
        batch: int = 32,
        progress: Progress | None = None,
        label: str = "encoding",
    ) -> None:
        """Check the shards that hold these ids, and compute what is missing or damaged, in the given order.

        Of two processes that want the same rows, the second waits for the first and finds them done.
        """
        if not self._owed(ids):
            return
        with self._lock:
            owed = self._owed(ids)  # again: another process may have been here
            waiting: list[tuple[Sequence[str], dict[str, Tensor]]] = []
            size, since = 0, time.monotonic()
            for start in range(0, len(owed), batch):
                names = owed[start : start + batch]
                rows = self._stored_form(compute(names), len(names))
                waiting.append((names, rows))
                size += sum(tensor.nbytes for tensor in rows.values())
                if size >= self._shard_bytes or time.monotonic() - since > 30:
                    self._append(waiting)
                    waiting, size, since = [], 0, time.monotonic()
                if progress is not None:
                    progress(label, min(start + batch, len(owed)), len(owed))
            if waiting:
                self._append(waiting)

    def rows(self, ids: Sequence[str]) -> dict[str, Tensor]:
        """Named tensors `[len(ids), ...]`, on the CPU, in this order; ids may repeat. Raises when one has no
        row."""
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for position, name in enumerate(ids):
            place = self._place(name)
            if place is None:
                raise RunError(f"{name} was never encoded with {self._key}", help="call `ensure` first")
            by_shard.setdefault(place[0], []).append((position, place[1]))
        found: dict[str, Tensor] = {}
        for shard, pairs in by_shard.items():
            positions, rows = (torch.tensor(column) for column in zip(*pairs, strict=True))
            for name, tensor in self._open(shard).items():
                chosen = tensor[rows]
                chosen = chosen.float() if chosen.dtype == torch.float16 else chosen
                if name not in found:
                    found[name] = chosen.new_empty(len(ids), *chosen.shape[1:])
                found[name][positions] = chosen
        return found

    # ------------------------------------------------------------------------------------------------ reading

    def _owed(self, ids: Sequence[str]) -> list[str]:
        """`missing`, after the shards of the others have been checked, once a process."""
        owed = self.missing(ids)
        shards = {place[0] for name in dict.fromkeys(ids) if (place := self._place(name)) is not None}
        damaged = [shard for shard in sorted(shards - self._sound) if not self._is_sound(shard)]
        if not damaged:
            return owed
        for shard in damaged:
            self._discard(shard)
        return self.missing(ids)

    def _place(self, name: str) -> tuple[int, int] | None:
        place = self._places.get(name)
        if place is None:
            with closing(self._connect()) as index:
                place = index.execute("SELECT shard, row FROM place WHERE id = ?", (name,)).fetchone()
            if place is not None:
                if len(self._places) >= KNOWN_ROWS:
                    self._places.clear()
                self._places[name] = place
        return place

    def _file(self, shard: int) -> tuple[Path, int, str]:
        with closing(self._connect()) as index:
            name, size, digest = index.execute(
                "SELECT name, size, sha256 FROM shard WHERE id = ?", (shard,)
            ).fetchone()
        return self.folder / name, size, digest

    def _is_sound(self, shard: int) -> bool:
        path, size, digest = self._file(shard)
        if not path.exists() or path.stat().st_size != size:
            return False
        with path.open("rb") as stream:
            sound = hashlib.file_digest(stream, "sha256").hexdigest() == digest
        if sound:
            self._sound.add(shard)
        return sound

    def _open(self, shard: int) -> dict[str, Tensor]:
        """The shard's tensors, mapped rather than read."""
        if shard not in self._shards:
            self._shards[shard] = load_file(self._file(shard)[0])
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(shard)
        return self._shards[shard]

    # ------------------------------------------------------------------------------------------------ writing

    def _stored_form(self, rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        stored = {}
        for name, tensor in rows.items():
            assert len(tensor) == count, f"{name} has {len(tensor)} rows for {count} ids"
            tensor = tensor.detach().cpu()
            if tensor.is_floating_point():
                tensor = tensor.float()
                if not tensor.isfinite().all():
                    raise RunError(f"the encoder gave `{name}` that isn't finite", help="encode in fp32")
                if self._dtype == torch.float16 and tensor[0].numel() >= SMALL:
                    tensor = tensor.half()
                    if not tensor.isfinite().all():
                        raise RunError(
                            f"`{name}` is too large for half precision", help="store it in float32"
                        )
            stored[name] = tensor.contiguous()
        return stored

    def _append(self, parts: Sequence[tuple[Sequence[str], dict[str, Tensor]]]) -> None:
        """One shard: first the file, whole, then its rows in the index. A kill in between leaves an unused
        file."""
        names = [name for part, _ in parts for name in part]
        tensors = {name: torch.cat([rows[name] for _, rows in parts]) for name in parts[0][1]}
        layout = {name: f"{tensor.dtype} {list(tensor.shape[1:])}" for name, tensor in tensors.items()}
        content = save(tensors, metadata={"key": self._key, "ids": json.dumps(names)})
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{digest[:24]}.safetensors"
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
        with closing(self._connect()) as index, index:
            known = dict(index.execute("SELECT name, shape FROM layout"))
            if known and known != layout:
                raise RunError(
                    f"the encoder {self._key} used to give {known} and now gives {layout}",
                    help="its encoder_key must change when its output does",
                )
            index.executemany("INSERT OR REPLACE INTO layout VALUES (?, ?)", layout.items())
            shard = index.execute(
                "INSERT INTO shard (name, size, sha256) VALUES (?, ?, ?)", (path.name, len(content), digest)
            ).lastrowid
            index.executemany(
                "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
                [(name, shard, row) for row, name in enumerate(names)],
            )
        assert shard is not None
        self._sound.add(shard)

    def _discard(self, shard: int) -> None:
        path = self._file(shard)[0]
        log.warning("%s is damaged or gone; its rows are encoded again", path)
        with self._lock, closing(self._connect()) as index, index:
            index.execute("DELETE FROM place WHERE shard = ?", (shard,))
            index.execute("DELETE FROM shard WHERE id = ?", (shard,))
        path.unlink(missing_ok=True)
        self._shards.pop(shard, None)
        self._places = {name: place for name, place in self._places.items() if place[0] != shard}

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "index.sqlite", timeout=60)
