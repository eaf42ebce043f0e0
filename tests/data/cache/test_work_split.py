"""Processes that fill a cache together: each row once, in the batches of one process, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smpo.data.cache.encoded_store import EncodedStore
from smpo.data.cache.scores import ScoreTable
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from tests.data.worlds import Judge, Points

T = TypeVar("T")


def together(workers: int, waiting: int, work: Callable[[WorkSplit], T]) -> list[T]:
    """What `workers` processes and others that only wait make of it, each a thread here. Stops after a minute where
    one waits for a meeting that another doesn't come to."""
    barrier = threading.Barrier(workers + waiting, timeout=60)
    passed: list[Tensor] = []

    def member(rank: int) -> T:
        def told(numbers: Tensor) -> Tensor:
            if rank == 0:
                passed[:] = [numbers]
            barrier.wait()
            found = passed[0].clone()
            barrier.wait()
            return found

        def meet() -> None:
            barrier.wait()

        share = rank if rank < workers else None
        return work(WorkSplit(rank == 0, share, workers, told, meet, lambda: None))

    with ThreadPoolExecutor(workers + waiting) as pool:
        return [one.result() for one in [pool.submit(member, rank) for rank in range(workers + waiting)]]


class Rows:
    """Rows by name, and the batches that were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, ids: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append(tuple(ids))
        return {"mean": torch.tensor([[float(name)] for name in ids])}


IDS = [str(n) for n in range(23)]


@pytest.mark.parametrize("waiting", [0, 2])
def test_rows_are_encoded_once_in_the_batches_of_one_process(tmp_path: Path, waiting: int) -> None:
    alone = Rows()
    EncodedStore(tmp_path / "alone", "key").ensure(["4"], Rows())
    EncodedStore(tmp_path / "alone", "key").ensure(IDS, alone, batch=3)
    EncodedStore(tmp_path / "shared", "key").ensure(["4"], Rows())

    def work(team: WorkSplit) -> tuple[Rows, Tensor]:
        store, rows = EncodedStore(tmp_path / "shared", "key", shard_bytes=20), Rows()
        store.ensure(IDS, rows, batch=3, team=team)
        store.ensure(IDS, rows, batch=3, team=team)  # and once more, when nothing is missing
        return rows, store.rows(IDS)["mean"]

    found = together(3, waiting, work)
    asked = [rows.asked for rows, _ in found]
    assert sorted(batch for one in asked for batch in one) == sorted(alone.asked)
    assert all(len(one) >= 2 for one in asked[:3]) and not any(asked[3:])
    assert all(rows[:, 0].tolist() == [float(name) for name in IDS] for _, rows in found)


def test_many_small_shards_are_put_together_by_one_of_them(tmp_path: Path) -> None:
    ids = [str(n) for n in range(90)]

    def work(team: WorkSplit) -> Tensor:
        store = EncodedStore(tmp_path, "key", shard_bytes=200)
        for size in range(10, 100, 10):
            store.ensure(ids[:size], Rows(), batch=1, team=team)
        return store.rows(ids)["mean"][:, 0]

    assert all(rows.tolist() == [float(name) for name in ids] for rows in together(2, 1, work))
    store = EncodedStore(tmp_path, "key")
    assert len(list(store.folder.glob("*.safetensors"))) < 20 and not list(store.folder.glob("*.tmp"))


def test_damaged_rows_are_found_by_whoever_looks_after_them_and_encoded_again(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "key", shard_bytes=20)
    store.ensure(IDS, Rows(), batch=3)
    files = sorted(store.folder.glob("*.safetensors"))
    for file in files[::2]:
        file.write_bytes(file.read_bytes()[:-1] + b"!")

    def work(team: WorkSplit) -> Tensor:
        store = EncodedStore(tmp_path, "key", shard_bytes=20)
        store.ensure(IDS, Rows(), batch=3, team=team)
        return store.rows(IDS)["mean"][:, 0]

    assert all(rows.tolist() == [float(name) for name in IDS] for rows in together(2, 0, work))


@pytest.mark.parametrize("waiting", [0, 1])
def test_scores_are_computed_once_in_the_batches_of_one_process(tmp_path: Path, waiting: int) -> None:
    table = Points(pairs=17)
    alone = ScoreTable(tmp_path / "alone.db").ensure(table, Judge(), batch=4)
    progress: list[tuple[str, int, int]] = []

    def work(team: WorkSplit) -> tuple[int, tuple[Tensor, Tensor, object]]:
        judge, told = Judge(), progress if team.is_leader else []
        scores = ScoreTable(tmp_path / "shared.db")
        found = scores.ensure(
            table,
            judge,
            batch=4,
            progress=lambda *now: told.append(now),
            provenance={"dtype": "fp32"},
            team=team,
        )
        return judge.asked, found

    found = together(2, waiting, work)
    asked = [count for count, _ in found]
    assert sum(asked) == 34 and min(asked[:2]) >= 16 and not any(asked[2:])
    for _, (winner, loser, stats) in found:
        assert torch.equal(winner, alone[0]) and torch.equal(loser, alone[1]) and stats == alone[2]
    assert progress == [("scoring", done, 34) for done in (8, 16, 24, 32, 34)]
    assert [one["dtype"] for one in ScoreTable(tmp_path / "shared.db").provenance("judge")] == ["fp32"]


@given(st.integers(0, 60), st.integers(1, 9))
def test_shares_are_whole_and_even(count: int, shares: int) -> None:
    things = list(range(count))
    parts = [
        WorkSplit(n == 0, n, shares, SINGLE_PROCESS.broadcast, SINGLE_PROCESS.barrier, SINGLE_PROCESS.check).shard(
            things
        )
        for n in range(shares)
    ]
    assert sorted(thing for part in parts for thing in part) == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert not WorkSplit(
        False, None, shares, SINGLE_PROCESS.broadcast, SINGLE_PROCESS.barrier, SINGLE_PROCESS.check
    ).shard(things)
