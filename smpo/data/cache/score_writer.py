"""Compute scores that aren't stored yet, a batch at a time, and store them."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from smpo.data.cache.scorer_inputs import Inputs, scores_of
from smpo.errors import RunError
from smpo.kinds import PairTable, Scorer

__all__ = ["at_place", "commit", "distinct", "owed_places", "stored", "wanted"]


def commit(
    database: sqlite3.Connection,
    scorer: Scorer,
    asked: list[tuple[str, str]],
    inputs: Sequence[Inputs],
    provenance: str | None,
) -> None:
    """Score some (image, prompt), whose `inputs` are given, and write the scores down, all or none, with how that was
    done (`provenance`, as JSON).

    An ensemble's score is computed from stored scores of its members; only missing ones are computed. Raises
    `RunError` for a score that isn't a finite number.
    """
    parts: Sequence[Scorer] = getattr(scorer, "parts", ())
    if parts:
        said = torch.tensor([_known(database, part, asked, inputs, provenance) for part in parts], dtype=torch.float64)
        values = scorer.combined(said).tolist()  # type: ignore[attr-defined]
    else:
        values = scores_of(scorer, inputs, [prompt for _, prompt in asked]).tolist()
    if len(values) != len(asked):
        raise RunError(f"{scorer.key} gave {len(values)} scores for {len(asked)} images")
    for (image, prompt), value in zip(asked, values, strict=True):
        if not math.isfinite(value):
            raise RunError(
                f"{scorer.key} gave {value} for image {image} with the prompt {prompt!r}",
                help="a reward in half precision may overflow: try fp32",
            )
    with database:
        database.executemany(
            "INSERT OR REPLACE INTO score VALUES (?, ?, ?, ?)",
            [(scorer.key, *names, value) for names, value in zip(asked, values, strict=True)],
        )
        if provenance is not None:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            database.execute("INSERT OR IGNORE INTO provenance VALUES (?, ?, ?)", (scorer.key, provenance, since))


def _known(
    database: sqlite3.Connection,
    scorer: Scorer,
    asked: list[tuple[str, str]],
    inputs: Sequence[Inputs],
    provenance: str | None,
) -> list[float | None]:
    """An ensemble member's scores of some (image, prompt). New ones are stored under the member's own key."""
    owed = [place for place, names in enumerate(asked) if stored(database, scorer.key, *names) is None]
    if owed:
        commit(database, scorer, [asked[place] for place in owed], [inputs[place] for place in owed], provenance)
    return [stored(database, scorer.key, *names) for names in asked]


def owed_places(
    database: sqlite3.Connection, table: PairTable, key: str, rows: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Places (see `at_place`) of what has no score, each image and prompt once, in the order of `rows`: all, in storage
    order, unless given."""
    found = np.fromiter(
        (
            (2 * row + side, hash((image, prompt)))
            for row, prompt, images in wanted(table, rows)
            for side, image in enumerate(images)
            if stored(database, key, image, prompt) is None
        ),
        np.dtype([("place", np.int64), ("name", np.int64)]),
    )
    return found["place"][distinct(found["name"])]


def at_place(table: PairTable, place: int) -> tuple[str, str]:
    """Image and prompt: of row r the winner's place is 2r, the loser's 2r + 1."""
    pair = table[place // 2]
    return (pair.loser if place % 2 else pair.winner), pair.prompt


def distinct(hashes: Iterable[int]) -> NDArray[np.int64]:
    """Where each is seen first, in order; by hashes of 64 bits, since millions of texts would be gigabytes."""
    array = hashes if isinstance(hashes, np.ndarray) else np.fromiter(hashes, np.int64)
    return np.sort(np.unique(array, return_index=True)[1])


def wanted(table: PairTable, rows: Sequence[int] | None = None) -> Iterator[tuple[int, str, tuple[str, str]]]:
    """Row, prompt, and both images of each pair."""
    for row in range(len(table)) if rows is None else rows:
        pair = table[row]
        yield row, pair.prompt, (pair.winner, pair.loser)


def stored(database: sqlite3.Connection, key: str, image: str, prompt: str) -> float | None:
    """A score, where there is one."""
    found = database.execute(
        "SELECT value FROM score WHERE scorer = ? AND image = ? AND prompt = ?", (key, image, prompt)
    ).fetchone()
    return None if found is None else float(found[0])
