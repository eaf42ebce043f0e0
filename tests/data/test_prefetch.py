"""Work is done ahead in order, never more of it than was allowed, and an error comes where it belongs."""

import threading
import time
from typing import Any

import pytest
import torch

from smpo.data import prefetch
from smpo.data.prefetch import Prefetch, picture_of


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_order(workers: int) -> None:
    items = list(range(50))
    work = Prefetch(items, lambda n: n * n, workers=workers, least=4)
    found = [value for start in range(0, 50, 7) for value in work.take(items[start : start + 7])]
    assert found == [n * n for n in items] and work.waiting == 0


@pytest.mark.parametrize("size", [10, 1000])
def test_no_more_waits_than_memory_allows(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(prefetch, "AHEAD", 10 * 4 * 10)
    made, taken, lock, most = 0, 0, threading.Lock(), 0

    def work(_: int) -> torch.Tensor:
        nonlocal made, most
        with lock:
            made += 1
            most = max(most, made - taken)
        return torch.zeros(size)

    items = list(range(200))
    ahead = Prefetch(items, work, workers=2, least=4)
    for item in items:
        ahead.take([item])
        with lock:
            taken += 1
        assert ahead.waiting <= (10 if size == 10 else 4)
    assert most <= (11 if size == 10 else 5) and made == 200


def test_without_workers_nothing_is_begun() -> None:
    done: list[int] = []
    ahead = Prefetch([1, 2, 3], done.append, workers=0)
    time.sleep(0.01)
    assert not done
    ahead.take([1])
    assert done == [1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_after_the_results_before_it(workers: int) -> None:
    def work(n: int) -> int:
        if n == 5:
            raise KeyError(n)
        return n

    ahead = Prefetch(range(20), work, workers=workers, least=8)
    assert ahead.take(range(5)) == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        ahead.take([5])
    ahead.close()
    assert ahead.waiting == 0


def test_an_item_that_was_not_foreseen_is_worked_on_at_once() -> None:
    ahead = Prefetch([1, 2], lambda n: 10 * n, workers=1)
    assert ahead.take([7, 1, 2]) == [70, 10, 20]


def test_tables_that_do_not_say_so_are_read_by_one_thread_at_a_time() -> None:
    class Table:
        busy = 0

        def picture(self, image: str) -> Any:
            self.busy += 1
            assert self.busy == 1
            time.sleep(0.002)
            self.busy -= 1
            return image

    read = picture_of(Table())  # type: ignore[arg-type]
    names = [str(n) for n in range(30)]
    assert Prefetch(names, read, workers=4, least=30).take(names) == names
