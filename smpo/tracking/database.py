"""The first creation of an sqlite store, as libraries do it, breaks when two try at once or one is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["create_database"]


def create_database(
    database: Path, migrate: Callable[[str], object], *, say: Callable[[str], None] | None = None
) -> None:
    """Make sure that the store exists; `migrate(uri)` fills an empty one, through SQLAlchemy.

    One process creates it and others wait for that. It is made under another name and renamed when complete,
    so a store that is there is a whole one.
    """
    from filelock import FileLock
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists():
            return
        if say is not None:
            say(f"creating the tracking store {database} (once, some seconds in the background)")
        unfinished = database.with_name(f"{database.name}.new")
        unfinished.unlink(missing_ok=True)

        def without_waiting(connection: Any, record: Any) -> None:
            # Most of the time goes to hundreds of waits for the disk; a half-made store needs no protection.
            if str(unfinished.resolve()) in [row[2] for row in connection.execute("PRAGMA database_list")]:
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA journal_mode=MEMORY")

        event.listen(Engine, "connect", without_waiting)
        try:
            migrate(f"sqlite:///{unfinished}")
        finally:
            event.remove(Engine, "connect", without_waiting)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)
