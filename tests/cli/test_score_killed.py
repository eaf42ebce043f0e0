"""`smpo score`, killed again and again at moments of all kinds: one batch is lost at most, and no bit is changed.

Each attempt is the command itself in a process of its own that ends by SIGKILL, so nothing of it can tidy up: no
`finally`, no `atexit`, no sqlite closing its file. Attempts are forked, because starting Python a dozen times would
take a minute; `tests/cli/test_data.py` kills one that was started in full.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.words import smpo
from tests.data.worlds import jpeg, vote, write

BATCH, PAIRS = 4, 60

COUNTED = """
import os
from typing import Literal
from smpo.components.rewards import ClipPreference
from smpo.registry.component import register

class Counted:
    def __init__(self, scorer):
        self.scorer, self.key = scorer, scorer.key
    def __call__(self, pictures, prompts):
        with open("asked.txt", "a") as stream:
            stream.write("".join(f"{prompt}\\n" for prompt in prompts))
        return self.scorer(pictures, prompts)

@register
class CountedClip(ClipPreference):
    \"\"\"The shapes world's CLIP, and a line for every picture it was asked about.\"\"\"
    use: Literal["counted"] = "counted"
    weights: str = "smpo:worlds/shapes/weights/reward"
    def load(self, runtime):
        return Counted(super().load(runtime))
"""

SPEC = f"""\
name: killed
uses: [./counted.py]
model: shapes
data: {{use: pickapic, path: pairs.parquet}}
reward: counted
objective: smpo
smoothing: likelihood
inversion: none
train: {{steps: 2, batch: 4, lr: 1e-5, optimiser: adamw}}
runtime: {{threads: 1, tracking: none, encode_batch: {BATCH}, device: cpu}}
"""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_write(number: int) -> Callable[[], None]:
    """Just before sqlite runs its `number`-th statement that isn't a question: tables, BEGIN, rows, COMMIT."""

    def arm() -> None:
        seen = [0]

        def count(statement: str) -> None:
            seen[0] += not statement.startswith(("SELECT", "PRAGMA"))
            if seen[0] == number:
                die()

        watch(lambda database: database.set_trace_callback(count))

    return arm


def within_write(steps: int) -> Callable[[], None]:
    """After so many instructions of sqlite's machine on scores, in the middle of whatever it is doing."""

    def arm() -> None:
        left, writing = [steps], [False]

        def note(statement: str) -> None:
            writing[0] |= statement.startswith("INSERT OR REPLACE INTO score")

        def count() -> int:
            left[0] -= writing[0]
            if left[0] == 0:
                die()
            return 0

        watch(lambda database: (database.set_trace_callback(note), database.set_progress_handler(count, 1)))

    return arm


def within_index() -> None:
    """While the index of the pairs is written: pages without a footer, under a temporary name."""
    pq.ParquetWriter.close = lambda writer: die()


def watch(each: Callable[[sqlite3.Connection], object]) -> None:
    connect = sqlite3.connect

    def watched(*args: object, **settings: object) -> sqlite3.Connection:
        database = connect(*args, **settings)
        each(database)
        return database

    sqlite3.connect = watched


@dataclass(frozen=True)
class Moment:
    """When to kill: where `arm` says, or from outside, `delay` seconds after so many `pictures` were asked about."""

    arm: Callable[[], None] | None = None
    delay: float | None = None
    pictures: int = 0


def attempt(folder: Path, moment: Moment) -> int | None:
    """`smpo score` in a child; the signal it died of, or None when it ended well."""
    from smpo.cli.main import main

    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(folder)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            sys.argv = ["smpo", "score", "killed.yaml", "--json", "--trust-code"]
            if moment.arm is not None:
                moment.arm()
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os._exit(code)
    if moment.delay is not None:
        until = asked(folder) + moment.pictures
        while asked(folder) < until and not ended(child):
            time.sleep(0.002)
        time.sleep(moment.delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "only a signal may end it early"
    return None


def ended(child: int) -> bool:
    """Without taking its exit status away."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def world(folder: Path) -> Path:
    folder.mkdir()
    rows = [vote(f"a cat {i % 7}", jpeg(i), jpeg(100 + i), float(i % 3 > 0)) for i in range(PAIRS)]
    write(folder / "pairs.parquet", rows)
    (folder / "counted.py").write_text(COUNTED)
    (folder / "killed.yaml").write_text(SPEC)
    return folder


def asked(folder: Path) -> int:
    file = folder / "asked.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def rows(folder: Path, what: str) -> list[tuple[object, ...]]:
    file = folder / "runs/cache/scores.db"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return database.execute(f"SELECT * FROM {what} ORDER BY 1, 2, 3").fetchall() if what in tables else []


def test_whenever_it_is_killed_one_batch_is_lost_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = world(tmp_path / "whole")
    monkeypatch.chdir(whole)
    said = smpo(capfd, "score", "killed.yaml", "--json", "--trust-code")  # the children find torch imported
    assert said.code == 0 and asked(whole) == 2 * PAIRS, said.err
    shutil.rmtree(whole / "runs")
    (whole / "asked.txt").unlink()
    began = time.monotonic()
    assert attempt(whole, Moment()) is None
    took = time.monotonic() - began

    folder, draw = world(tmp_path / "killed"), random.Random(0)
    moments: list[Moment] = [
        Moment(arm=within_index),
        *(Moment(arm=at_write(draw.randint(1, 8))) for _ in range(2)),  # tables, provenance
        *(Moment(arm=at_write(draw.randint(8, 30))) for _ in range(4)),  # six a batch
        *(Moment(arm=within_write(draw.randint(1, 300))) for _ in range(3)),
        *(Moment(pictures=draw.randint(1, 20), delay=draw.uniform(0, 0.01)) for _ in range(3)),
        *(Moment(delay=draw.uniform(0, took)) for _ in range(2)),
    ]
    killed = 0
    for moment in moments:
        before, known = asked(folder), len(rows(folder, "score"))
        if attempt(folder, moment) is None:
            continue  # it was quicker than the delay
        killed += 1
        scored, kept = asked(folder) - before, len(rows(folder, "score")) - known
        assert 0 <= scored - kept <= BATCH, f"{scored} were scored and {kept} kept"
        assert kept % BATCH == 0, "a batch is there or it isn't"
    assert killed >= 10
    assert attempt(folder, Moment()) is None

    again = asked(folder) - 2 * PAIRS
    assert 0 < again <= BATCH * killed, "some batch was under way at some kill"
    for what in ("score", "extremes", "summary"):
        assert rows(folder, what) == rows(whole, what), f"{what}, bit for bit"
    assert attempt(folder, Moment()) is None and asked(folder) - 2 * PAIRS == again, "nothing is owed any more"
