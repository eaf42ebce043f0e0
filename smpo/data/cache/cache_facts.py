"""The content of the caches, read from their sqlite files: for `smpo plan`, which loads no torch.

Scores and latents are filed under keys that are made from the content of weights and files, and making them takes as
long as reading these. So a run notes which keys a recipe led to (`note`), and a plan looks them up. A recipe whose
files have changed since gets other keys when it is next run: a forecast may be out of date, a cache can't be.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

__all__ = ["Stored", "encoded", "load_facts", "save_facts", "scored"]

_TABLE = "CREATE TABLE IF NOT EXISTS recipe (recipe TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True)
class Stored:
    """Rows in a cache, and their bytes on disk."""

    rows: int
    size: int


def save_facts(cache: Path, recipe: BaseModel, facts: Mapping[str, Any]) -> None:
    """Store the facts of a recipe's data."""
    cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache / "recipes.db", timeout=60)) as database, database:
        database.execute(_TABLE)
        database.execute("INSERT OR REPLACE INTO recipe VALUES (?, ?)", (_name(recipe), json.dumps(dict(facts))))


def load_facts(cache: Path, recipe: BaseModel) -> dict[str, Any]:
    """What the last run with this recipe noted; empty when there was none."""
    found = _ask(cache / "recipes.db", "SELECT facts FROM recipe WHERE recipe = ?", _name(recipe))
    try:
        facts = json.loads(found[0]) if found else {}
    except (ValueError, TypeError, RecursionError):  # a forecast is all that is lost
        facts = {}
    return facts if isinstance(facts, dict) else {}


def scored(cache: Path, scorer: str, pairs: str) -> tuple[int, bool]:
    """How many scores of this scorer are stored, and whether all those of this table are among them."""
    whole = _ask(cache / "scores.db", "SELECT count FROM extremes WHERE scorer = ? AND pairs = ?", scorer, pairs)
    some = _ask(cache / "scores.db", "SELECT count(*) FROM score WHERE scorer = ?", scorer)
    return (int(some[0]) if some else 0), whole is not None


def encoded(folder: Path, *keys: str, halves: bool) -> Stored:
    """Rows filed under these keys of encoders (`cache/latents` or `cache/prompts`), in 16 or 32 bits."""
    names = [hashlib.sha256(key.encode()).hexdigest()[:24] for key in keys]
    rows = size = 0
    for index in [
        index for name in names for index in sorted(folder.glob(f"{name}-{'fp16' if halves else 'fp32'}/index.sqlite"))
    ]:
        counted = _ask(index, "SELECT count(*) FROM place")
        bytes_ = _ask(index, "SELECT coalesce(sum(size), 0) FROM shard")
        rows += int(counted[0]) if counted else 0
        size += int(bytes_[0]) if bytes_ else 0
    return Stored(rows, size)


def _name(recipe: BaseModel) -> str:
    kind = getattr(recipe, "kind", type(recipe).__name__)
    text = json.dumps([kind, recipe.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _ask(file: Path, question: str, *values: str) -> tuple[Any, ...] | None:
    """One row, or None: no file, no table, no row, no luck."""
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            found: tuple[Any, ...] | None = database.execute(question, values).fetchone()
    except sqlite3.Error:
        return None
    return found
