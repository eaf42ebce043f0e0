"""Reward scores of training pairs: computed once, kept in sqlite, found again by content.

A score belongs to (scorer key, image id, prompt), so it outlives runs, reordered rows and added data. Batches
are committed as they come: the official preprocessing scores images one by one for days and starts over after
a crash (method 2b, D8). The extremes over the table are stored with the provenance that the official literals
lack (D12)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from smpo.data.cache.score_writer import at_place, commit, distinct, owed_places, stored, wanted
from smpo.data.cache.scorer_inputs import Inputs, leaves, prepare_for
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.prefetch import Prefetch
from smpo.data.progress import Progress
from smpo.errors import RunError
from smpo.kinds import PairTable, Scorer, ScoreStats

__all__ = ["Begun", "ScoreTable"]

Begun = Prefetch[str, Inputs]
"""Pictures on their way to a scorer, by image id."""

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

    def missing(self, table: PairTable, key: str, rows: Sequence[int] | None = None) -> int:
        """How many scores of this table, or of some of its rows, the scorer called `key` still owes. Needs no scorer in
        memory."""
        with closing(self._connect()) as database:
            return len(owed_places(database, table, key, rows))

    @staticmethod
    def wanted(table: PairTable) -> int:
        """How many scores this table needs."""
        return len(distinct(hash((image, prompt)) for _, prompt, images in wanted(table) for image in images))

    def read(
        self, table: PairTable, key: str, rows: Sequence[int] | None = None, *, record: bool = True
    ) -> tuple[Tensor, Tensor, ScoreStats]:
        """`(winner [M], loser [M])` float32, in the table's order or that of `rows`, and their extremes; `record` keeps
        those of the whole table. Raises when some are missing."""
        count = len(table) if rows is None else len(rows)
        winner, loser = torch.empty(count), torch.empty(count)
        with closing(self._connect()) as database:
            for place, (_, prompt, images) in enumerate(wanted(table, rows)):
                for column, image in zip((winner, loser), images, strict=True):
                    value = stored(database, key, image, prompt)
                    if value is None:
                        owed = self.missing(table, key, rows)
                        raise RunError(f"{owed:,} scores of {key} are missing", help="score the pairs first")
                    column[place] = value
            both = torch.cat([winner, loser])
            stats = _stats(both)
            digest = hashlib.sha256(both.numpy().tobytes()).hexdigest()
            pairs = table.digest if rows is None else f"{table.digest}/{_digest(rows)}"
            _compare(database, key, pairs, digest)
            if record:
                with database:
                    if rows is None:
                        database.execute(
                            "INSERT OR REPLACE INTO extremes VALUES (?, ?, ?, ?, ?)",
                            (key, pairs, stats.low, stats.high, stats.count),
                        )
                    database.execute(
                        "INSERT OR REPLACE INTO summary VALUES (?, ?, ?)",
                        (key, pairs, json.dumps({**asdict(stats), "scores": digest})),
                    )
        return winner, loser, stats

    def provenance(self, key: str) -> list[dict[str, Any]]:
        """How scores of this scorer were made: `ensure`'s `provenance` at each computation, oldest first."""
        with closing(self._connect()) as database:
            found = database.execute(
                "SELECT facts, since FROM provenance WHERE scorer = ? ORDER BY since", (key,)
            ).fetchall()
        return [{**json.loads(facts), "since": since} for facts, since in found]

    def ensure(  # noqa: PLR0913 -- settings of one call
        self,
        table: PairTable,
        scorer: Scorer,
        batch: int = 32,
        progress: Progress | None = None,
        provenance: Mapping[str, Any] | None = None,
        team: WorkSplit = SINGLE_PROCESS,
        *,
        rows: Sequence[int] | None = None,
        workers: int = 0,
        begun: Begun | None = None,
    ) -> tuple[Tensor, Tensor, ScoreStats]:
        """Compute what is missing of all rows, or of `rows`, then `read`. A kill loses at most one batch. `provenance`
        (dtype, revision, …) is stored beside the scores when some are computed.

        `workers` threads decode and preprocess ahead of the scorer; `begun`: what `begin` has begun of it.

        Of two runs that want the same scores, the second waits for the first and finds them done; the processes of one
        run, its `team`, share them batch by batch. Raises `RunError` for a score that isn't a finite number, with the
        image's id; what came before stays.
        """
        held = self._lock(scorer.key) if team.is_leader else nullcontext()
        with held, closing(self._connect()) as database:
            owed, asked = self._share(database, table, scorer.key, rows, batch, team)
            images = [image for some in asked for image, _ in some]
            if begun is None or begun.items != images:
                if begun is not None:
                    begun.close()
                begun = self._begin(database, table, scorer, rows, images, workers, batch)
            facts = None  # told once for all processes of a team
            if team.is_leader and provenance is not None:
                facts = json.dumps(dict(provenance), sort_keys=True, default=str)
            done = 0
            with closing(begun):
                for some in asked:
                    team.check()
                    commit(database, scorer, some, begun.take([image for image, _ in some]), facts)
                    done += len(some)
                    if progress is not None:
                        progress("scoring", team.done(done, owed), owed)
            team.barrier()
        return self.read(table, scorer.key, rows, record=team.is_leader)

    def begin(
        self,
        table: PairTable,
        scorer: Scorer,
        batch: int,
        team: WorkSplit,
        *,
        rows: Sequence[int],
        workers: int,
    ) -> Begun:
        """Begin to decode and preprocess what `ensure` will score of `rows`; it gets the result as `begun`, which holds
        no weights."""
        with closing(self._connect()) as database:
            _, asked = self._share(database, table, scorer.key, rows, batch, team)
            images = [image for some in asked for image, _ in some]
            return self._begin(database, table, scorer, rows, images, workers, batch)

    @staticmethod
    def _share(
        database: sqlite3.Connection,
        table: PairTable,
        key: str,
        rows: Sequence[int] | None,
        batch: int,
        team: WorkSplit,
    ) -> tuple[int, list[list[tuple[str, str]]]]:
        """How many scores are missing, and the batches of (image, prompt) that this process computes."""
        owed = torch.zeros(0, dtype=torch.int64)
        if team.is_leader:
            owed = torch.from_numpy(owed_places(database, table, key, rows))
        owed = team.broadcast(owed)
        starts = team.shard(range(0, len(owed), batch))
        parts = [owed[start : start + batch].tolist() for start in starts]
        return len(owed), [[at_place(table, place) for place in part] for part in parts]

    @staticmethod
    def _begin(
        database: sqlite3.Connection, table: PairTable, scorer: Scorer, rows: Sequence[int] | None,
        images: Sequence[str], workers: int, batch: int,
    ) -> Begun:  # fmt: skip
        parts = leaves(scorer)
        keys = {part.key for part in parts}
        if len(parts) > 1:  # what is known of a member isn't prepared again
            keys = {key for key in keys if images and len(owed_places(database, table, key, rows))}
        return Prefetch(images, prepare_for(table, scorer, keys), workers=workers, least=2 * batch)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def _lock(self, purpose: str) -> FileLock:
        name = "".join(letter if letter.isalnum() else "-" for letter in purpose)[-60:]
        return FileLock(self._path.with_name(f"{self._path.name}.{name}.lock"))


def _digest(rows: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(rows, dtype=np.int64).tobytes()).hexdigest()[:16]


def _compare(database: sqlite3.Connection, key: str, pairs: str, digest: str) -> None:
    """Scores never change once all are there. sqlite doesn't notice a flipped bit in a number; this does.

    Raises `RunError`.
    """
    found = database.execute("SELECT facts FROM summary WHERE scorer = ? AND pairs = ?", (key, pairs)).fetchone()
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
