"""Policy and base get the same prompts and seeds; the base is drawn once, ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smpo.errors import RunError
from smpo.evaluation.results.evaluate import SamplingSettings, evaluate
from smpo.evaluation.sampling.picture_cache import BaseCache
from smpo.kinds import Prompt
from tests.evaluation.toys import QUICK, ToyModel, ToyPlane, ToyScorer, bright, dark, prompts, red


def test_both_models_draw_the_same_prompts_and_seeds() -> None:
    model = ToyModel()
    found = evaluate(model, prompts(), {"bright": bright()}, settings=QUICK)  # type: ignore[arg-type]
    asked = {side: [call[1:] for call in model.calls if call[0] == side] for side in (True, False)}
    assert asked[True] == asked[False]
    assert found.judgements[0].base.shape == (12, 2)
    assert found.judgements[0].comparison.gain == pytest.approx(
        np.mean(found.judgements[0].policy - found.judgements[0].base)
    )
    assert found.judgements[0].comparison.verdict == "better"
    assert sorted(found.kept_policy) == sorted(found.kept_base) and len(found.kept_policy) == 4
    assert all(len(row) == 2 for row in found.kept_policy.values())


def test_the_same_weights_tie_everywhere() -> None:
    found = evaluate(
        ToyModel(shift=0, spread=0),
        prompts(),
        {"bright": bright()},
        settings=QUICK,  # type: ignore[arg-type]
    )
    c = found.judgements[0].comparison
    assert (c.ties, c.gain, c.win_rate, c.p_value) == (12, 0, 0.5, 1)


@pytest.mark.parametrize("change", [{"batch": 1}, {"batch": 64}, {"keep": 0}])
def test_what_may_not_matter_does_not(change: dict[str, int]) -> None:
    def scores(settings: SamplingSettings) -> dict[str, object]:
        found = evaluate(ToyModel(), prompts(), {"bright": bright()}, settings=settings)  # type: ignore[arg-type]
        return found.to_dict()["judgements"][0]

    assert scores(QUICK) == scores(replace(QUICK, **change))


def test_a_limit_takes_a_part_of_the_same_evaluation() -> None:
    everything = evaluate(ToyModel(), prompts(), {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    part = evaluate(ToyModel(), prompts(), {"b": bright()}, settings=replace(QUICK, limit=5))  # type: ignore[arg-type]
    assert len(part.prompts) == 5
    rows = [everything.prompts.index(prompt) for prompt in part.prompts]
    assert np.array_equal(everything.judgements[0].policy[rows], part.judgements[0].policy)


def test_prompts_of_a_group_and_repeated_prompts_are_clusters() -> None:
    asked = [Prompt(f"wording {k}", group=f"scene {k % 4}") for k in range(12)] + [Prompt("again")] * 3
    found = evaluate(ToyModel(), asked, {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    assert found.judgements[0].comparison.clusters == 5


def test_the_base_is_drawn_once(tmp_path: Path) -> None:
    first, second = ToyModel(), ToyModel(shift=-5)
    one = evaluate(first, prompts(), {"b": bright()}, settings=QUICK, base_cache=BaseCache(tmp_path, "base"))  # type: ignore[arg-type]
    assert (first.drawn(reference=True), one.reused) == (24, 0)
    judge = bright()
    two = evaluate(second, prompts(), {"b": judge}, settings=QUICK, base_cache=BaseCache(tmp_path, "base"))  # type: ignore[arg-type]
    assert (second.drawn(reference=True), second.drawn(reference=False), two.reused) == (0, 24, 24)
    assert np.array_equal(one.judgements[0].base, two.judgements[0].base)
    assert judge.calls == 5, "five batches of the policy; the base's scores are known"
    for number, pictures in one.kept_base.items():
        assert [p.tobytes() for p in pictures] == [p.tobytes() for p in two.kept_base[number]]  # type: ignore[union-attr]


def test_a_new_judge_sees_stored_pictures_and_a_larger_limit_adds_to_them(tmp_path: Path) -> None:
    evaluate(
        ToyModel(),
        prompts(),
        {"b": bright()},
        settings=replace(QUICK, limit=6),
        base_cache=BaseCache(tmp_path, "k"),  # type: ignore[arg-type]
    )
    model = ToyModel()
    found = evaluate(
        model,
        prompts(),
        {"b": bright(), "d": dark()},
        settings=QUICK,
        base_cache=BaseCache(tmp_path, "k"),  # type: ignore[arg-type]
    )
    assert model.drawn(reference=True) == 12 and found.reused == 12
    assert np.array_equal(found.judgements[0].base, -found.judgements[1].base)
    plain = evaluate(ToyModel(), prompts(), {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    assert np.array_equal(plain.judgements[0].base, found.judgements[0].base)


def test_another_base_and_damaged_files_are_drawn_again(tmp_path: Path) -> None:
    def drawn(key: str) -> int:
        model = ToyModel()
        evaluate(model, prompts(), {"b": bright()}, settings=QUICK, base_cache=BaseCache(tmp_path, key))  # type: ignore[arg-type]
        return model.drawn(reference=True)

    assert [drawn("one"), drawn("other"), drawn("one")] == [24, 24, 0]
    for file in tmp_path.rglob("*.json"):
        file.write_text(file.read_text()[:40])
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"half a pict")
    assert drawn("one") == 24
    assert not list(tmp_path.rglob("*.part"))


def test_points_are_all_kept_and_stored(tmp_path: Path) -> None:
    far = ToyScorer("far", lambda point: float(np.linalg.norm(point)))  # type: ignore[arg-type]
    runs = [
        evaluate(ToyPlane(), prompts(), {"far": far}, settings=QUICK, base_cache=BaseCache(tmp_path, "p"))  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert [len(run.kept_base) for run in runs] == [12, 12]
    assert runs[1].reused == 24
    for number, points in runs[0].kept_base.items():
        assert np.array_equal(points, runs[1].kept_base[number])
        assert runs[1].kept_base[number][0].dtype == np.float32  # type: ignore[union-attr]


def test_scores_that_are_not_numbers_are_dropped_and_counted() -> None:
    moody = ToyScorer("moody", lambda picture: float("nan") if red(picture) > 130 else 1.0)  # type: ignore[arg-type]
    found = evaluate(ToyModel(), prompts(20), {"moody": moody}, settings=QUICK)  # type: ignore[arg-type]
    c = found.judgements[0].comparison
    assert c.dropped > 0 and c.prompts + c.dropped == 20
    assert "no finite score" in found.warnings[0]
    json.dumps(found.to_dict(), allow_nan=False)


def test_progress_counts_pictures_of_both_models(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(
        ToyModel(),
        prompts(),
        {"b": bright()},
        settings=QUICK,
        progress=lambda *news: told.append(news),  # type: ignore[arg-type]
    )
    assert told[0] == ("base", 5, 24) and told[-1] == ("policy", 24, 24)
    assert [news[0] for news in told] == ["base"] * 5 + ["policy"] * 5


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(RunError, match="0 prompts"):
        evaluate(ToyModel(), [], {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="0 judges"):
        evaluate(ToyModel(), prompts(), {}, settings=QUICK)  # type: ignore[arg-type]

    class Sloppy(ToyScorer):
        def __call__(self, pictures, prompts):  # type: ignore[no-untyped-def]
            return torch.zeros(len(pictures), 1)

    with pytest.raises(RunError, match=r"`sloppy` must return one score a picture, `\[5\]`"):
        evaluate(ToyModel(), prompts(), {"sloppy": Sloppy("s", red)}, settings=QUICK)  # type: ignore[arg-type]
