"""Reward scores of training pairs: computed once, kept in sqlite, found again by content.

A score belongs to (scorer key, image id, prompt), so it outlives runs, reordered rows and added data. Batches
are committed as they come: the official preprocessing scores images one by one for days and starts over after
a crash (method 2b, D8). The extremes over the table are stored with the provenance that the official literals
lack (D12)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from smpo.data.asking import at_place, commit, distinct, owed_places, stored, wanted
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
            return len(owed_places(database, table, key))

    @staticmethod
    def wanted(table: PairTable) -> int:
        """How many scores this table needs."""
        return len(distinct(hash((image, prompt)) for _, prompt, images in wanted(table) for image in images))

    def read(self, table: PairTable, key: str, *, record: bool = True) -> tuple[Tensor, Tensor, ScoreStats]:
        """`(winner [M], loser [M])` float32, in the table's order, and their extremes, which `record` keeps. Raises
        when some are missing."""
        winner, loser = torch.empty(len(table)), torch.empty(len(table))
        with closing(self._connect()) as database:
            for row, prompt, images in wanted(table):
                for column, image in zip((winner, loser), images, strict=True):
                    value = stored(database, key, image, prompt)
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
                owed = torch.from_numpy(owed_places(database, table, scorer.key))
            owed = team.told(owed)
            facts = None  # told once for all processes of a team
            if team.leads and provenance is not None:
                facts = json.dumps(dict(provenance), sort_keys=True, default=str)
            done = 0
            for start in team.dealt(range(0, len(owed), batch)):
                team.check()
                places = owed[start : start + batch].tolist()
                commit(database, scorer, table, [at_place(table, place) for place in places], facts)
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
