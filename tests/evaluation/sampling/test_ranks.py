"""Several processes draw one evaluation: here threads, which meet at a barrier and share a folder as processes do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smpo.evaluation.results.evaluate import assist, evaluate
from smpo.evaluation.results.evaluation import Evaluation
from smpo.evaluation.sampling.generate import SamplingRanks
from smpo.evaluation.sampling.picture_cache import BaseCache
from tests.evaluation.toys import QUICK, ToyModel, ToyPlane, ToyScorer, bright, prompts


def together(
    folder: Path, world: int, model: Callable[[], ToyModel], judge: Callable[[], ToyScorer] = bright
) -> tuple[Evaluation, list[ToyModel], SamplingRanks]:
    barrier = threading.Barrier(world, timeout=20)
    everyone = [SamplingRanks(rank, world, barrier.wait, lambda: None, folder / "drawn") for rank in range(world)]  # type: ignore[arg-type]
    models = [model() for _ in range(world)]

    def words(rank: int) -> dict[str, Any]:
        return {"settings": QUICK, "base_cache": BaseCache(folder, "base"), "ranks": everyone[rank]}

    helpers = [
        threading.Thread(target=assist, args=(models[k], prompts(), {"b": judge()}), kwargs=words(k))
        for k in range(1, world)
    ]
    for helper in helpers:
        helper.start()
    found = evaluate(models[0], prompts(), {"b": judge()}, **words(0))  # type: ignore[arg-type]
    for helper in helpers:
        helper.join(20)
    return found, models, everyone[0]


@pytest.mark.parametrize("model", [ToyModel, ToyPlane])
@pytest.mark.parametrize("world", [2, 3, 8])
def test_it_is_the_evaluation_of_one(tmp_path: Path, world: int, model: Callable[[], ToyModel]) -> None:
    judge = bright if model is ToyModel else lambda: ToyScorer("far-1", lambda point: float(np.hypot(*point)))  # type: ignore[misc]
    alone = model()
    expected = evaluate(alone, prompts(), {"b": judge()}, settings=QUICK)  # type: ignore[arg-type]
    found, models, ranks = together(tmp_path, world, model, judge)
    assert found.to_dict() == expected.to_dict()
    for side in ("kept_base", "kept_policy"):
        ours, theirs = getattr(found, side), getattr(expected, side)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(one, two) for n in ours for one, two in zip(ours[n], theirs[n], strict=True))
    # The same batches, each drawn once, by as many processes as there are batches for (five of 24 pictures).
    calls = [call for one in models for call in one.calls]
    assert sorted(calls) == sorted(alone.calls)
    assert sum(bool(one.calls) for one in models) == min(world, 5)
    assert ranks.drawn == sum(len(seeds) for one in models[1:] for _, _, seeds in one.calls)


def test_what_the_cache_has_of_the_base_is_drawn_by_nobody(tmp_path: Path) -> None:
    evaluate(ToyModel(), prompts(), {"b": bright()}, settings=QUICK, base_cache=BaseCache(tmp_path, "base"))  # type: ignore[arg-type]
    found, models, ranks = together(tmp_path, 2, ToyModel)
    assert sum(one.drawn(reference=True) for one in models) == 0
    assert (found.reused, ranks.drawn) == (24, models[1].drawn(reference=False))


def test_what_isn_t_in_the_cache_is_done_by_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that shows late what others have written costs time, not the result."""
    monkeypatch.setattr(BaseCache, "read", lambda cache: None)
    expected = evaluate(ToyModel(), prompts(), {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    found, models, ranks = together(tmp_path, 2, ToyModel)
    assert found.to_dict() == expected.to_dict()
    assert ranks.drawn == 0 and models[0].drawn(reference=False) == 24
