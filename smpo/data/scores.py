"""Reward scores of training pairs: computed once, kept in sqlite, found again by content.

A score belongs to (scorer key, image id, prompt), so it outlives runs, reordered rows and added data. Batches
are committed as they come: the official preprocessing scores images one by one for days and starts over after
a crash (method 2b, D8). The extremes over the table are stored with the provenance that the official literals
lack (D12)."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from smpo.data.index import Progress
from smpo.data.team import ALONE, Team
from smpo.errors import RunError
from smpo.kinds import PairTable, Scorer, ScoreStats

__all__ = ["ScoreTable"]

_TABLES = """
CREATE TABLE IF NOT EXISTS score (
    scorer TEXT NOT NULL, image TEXT NOT NULL, prompt TEXT NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (scorer, image, prompt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extremes (
    scorer TEXT NOT NULL, pairs TEXT NOT NULL, low REAL NOT NULL, high REAL NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (scorer, pairs)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS summary (
    scorer TEXT NOT NULL, pairs TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (scorer, pairs)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS provenance (
    scorer TEXT NOT NULL, facts TEXT NOT NULL, since TEXT NOT NULL, PRIMARY KEY (scorer, facts)
) WITHOUT ROWID;
"""


class ScoreTable:
    """All scores of one cache folder. Any number of processes may use it at once; connections are
    short-lived."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Several first openings at once would collide.
        with self._lock("open"), closing(self._connect()) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_TABLES)

    def missing(self, table: PairTable, key: str) -> int:
        """How many scores of this table the scorer called `key` still owes. Needs no scorer in memory."""
        with closing(self._connect()) as database:
            return len(_owed(database, table, key))

    @staticmethod
    def wanted(table: PairTable) -> int:
        """How many scores this table needs."""
        return len(
            _distinct(hash((image, prompt)) for _, prompt, images in _wanted(table) for image in images)
        )

    def read(self, table: PairTable, key: str, *, record: bool = True) -> tuple[Tensor, Tensor, ScoreStats]:
        """`(winner [M], loser [M])` float32, in the table's order, and their extremes, which `record` keeps. Raises
        when some are missing."""
        winner, loser = torch.empty(len(table)), torch.empty(len(table))
        with closing(self._connect()) as database:
            for row, prompt, images in _wanted(table):
                for column, image in zip((winner, loser), images, strict=True):
                    value = _score(database, key, image, prompt)
                    if value is None:
                        owed = self.missing(table, key)
                        raise RunError(f"{owed:,} scores of {key} are missing", help="score the pairs first")
                    column[row] = value
            both = torch.cat([winner, loser])
            stats = _stats(both)
            digest = hashlib.sha256(both.numpy().tobytes()).hexdigest()
            _compare(database, key, table.digest, digest)
            if not record:
                return winner, loser, stats
            with database:
                database.execute(
                    "INSERT OR REPLACE INTO extremes VALUES (?, ?, ?, ?, ?)",
                    (key, table.digest, stats.low, stats.high, stats.count),
                )
                database.execute(
                    "INSERT OR REPLACE INTO summary VALUES (?, ?, ?)",
                    (key, table.digest, json.dumps({**asdict(stats), "scores": digest})),
                )
        return winner, loser, stats

    def provenance(self, key: str) -> list[dict[str, Any]]:
        """How scores of this scorer were made: what `ensure` was told each time it computed some, oldest first."""
        with closing(self._connect()) as database:
            found = database.execute(
                "SELECT facts, since FROM provenance WHERE scorer = ? ORDER BY since", (key,)
            ).fetchall()
        return [{**json.loads(facts), "since": since} for facts, since in found]

    def ensure(
        self,
        table: PairTable,
        scorer: Scorer,
        batch: int = 32,
        progress: Progress | None = None,
        provenance: Mapping[str, Any] | None = None,
        team: Team = ALONE,
    ) -> tuple[Tensor, Tensor, ScoreStats]:
        """Compute what is missing, then `read`. A kill loses at most one batch. `provenance` (dtype, revision, …) is
        stored beside the scores when some are computed.

        Of two runs that want the same scores, the second waits for the first and finds them done; the processes of one
        run, its `team`, share them batch by batch. Raises `RunError` for a score that isn't a finite number, with the
        image's id; what came before stays.
        """
        held = self._lock(scorer.key) if team.leads else nullcontext()
        with held, closing(self._connect()) as database:
            owed = torch.zeros(0, dtype=torch.int64)
            if team.leads:
                owed = torch.from_numpy(_owed(database, table, scorer.key))
            owed = team.told(owed)
            if team.leads and len(owed) and provenance is not None:
                facts = json.dumps(dict(provenance), sort_keys=True, default=str)
                since = datetime.now(UTC).isoformat(timespec="seconds")
                with database:
                    database.execute(
                        "INSERT OR IGNORE INTO provenance VALUES (?, ?, ?)", (scorer.key, facts, since)
                    )
            done = 0
            for start in team.dealt(range(0, len(owed), batch)):
                places = owed[start : start + batch].tolist()
                _commit(database, scorer, table, [_at(table, place) for place in places])
                done += len(places)
                if progress is not None:
                    progress("scoring", team.done(done, len(owed)), len(owed))
            team.meet()
        return self.read(table, scorer.key, record=team.leads)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def _lock(self, purpose: str) -> FileLock:
        name = "".join(letter if letter.isalnum() else "-" for letter in purpose)[-60:]
        return FileLock(self._path.with_name(f"{self._path.name}.{name}.lock"))


def _compare(database: sqlite3.Connection, key: str, pairs: str, digest: str) -> None:
    """Scores never change once all are there. sqlite doesn't notice a flipped bit in a number; this does.

    Raises `RunError`.
    """
    found = database.execute(
        "SELECT facts FROM summary WHERE scorer = ? AND pairs = ?", (key, pairs)
    ).fetchone()
    try:
        before = json.loads(found[0])["scores"] if found else digest
    except (ValueError, LookupError, TypeError, RecursionError):  # an older smpo wrote none
        return
    if before != digest:
        raise RunError(
            f"the stored scores of {key} are not those that were computed: the cache is damaged",
            help="`smpo cache clean CACHE --what scores` discards them all, and the next run computes them again",
        )


def _stats(scores: Tensor) -> ScoreStats:
    exact = scores.double()
    return ScoreStats(
        low=float(scores.min()),
        high=float(scores.max()),
        count=len(scores),
        mean=float(exact.mean()),
        std=float(exact.std(unbiased=False)),
    )


def _commit(
    database: sqlite3.Connection, scorer: Scorer, table: PairTable, wanted: list[tuple[str, str]]
) -> None:
    """Score some (image, prompt) and write them down, all or none."""
    values = scorer([table.picture(image) for image, _ in wanted], [prompt for _, prompt in wanted]).tolist()
    if len(values) != len(wanted):
        raise RunError(f"{scorer.key} gave {len(values)} scores for {len(wanted)} images")
    for (image, prompt), value in zip(wanted, values, strict=True):
        if not math.isfinite(value):
            raise RunError(
                f"{scorer.key} gave {value} for image {image} with the prompt {prompt!r}",
                help="a reward in half precision may overflow: try fp32",
            )
    with database:
        database.executemany(
            "INSERT OR REPLACE INTO score VALUES (?, ?, ?, ?)",
            [(scorer.key, *names, value) for names, value in zip(wanted, values, strict=True)],
        )


def _owed(database: sqlite3.Connection, table: PairTable, key: str) -> NDArray[np.int64]:
    """Places (`_at`) of what has no score, each image and prompt once, in storage order."""
    found = np.fromiter(
        (
            (2 * row + side, hash((image, prompt)))
            for row, prompt, images in _wanted(table)
            for side, image in enumerate(images)
            if _score(database, key, image, prompt) is None
        ),
        np.dtype([("place", np.int64), ("name", np.int64)]),
    )
    return found["place"][_distinct(found["name"])]


def _at(table: PairTable, place: int) -> tuple[str, str]:
    """Image and prompt: of row r the winner's place is 2r, the loser's 2r + 1."""
    pair = table[place // 2]
    return (pair.loser if place % 2 else pair.winner), pair.prompt


def _distinct(hashes: Iterable[int]) -> NDArray[np.int64]:
    """Where each is seen first, in order; by hashes of 64 bits, since millions of texts would be gigabytes."""
    array = hashes if isinstance(hashes, np.ndarray) else np.fromiter(hashes, np.int64)
    return np.sort(np.unique(array, return_index=True)[1])


def _wanted(table: PairTable) -> Iterator[tuple[int, str, tuple[str, str]]]:
    for row in range(len(table)):
        pair = table[row]
        yield row, pair.prompt, (pair.winner, pair.loser)


def _score(database: sqlite3.Connection, key: str, image: str, prompt: str) -> float | None:
    found = database.execute(
        "SELECT value FROM score WHERE scorer = ? AND image = ? AND prompt = ?", (key, image, prompt)
    ).fetchone()
    return None if found is None else float(found[0])
