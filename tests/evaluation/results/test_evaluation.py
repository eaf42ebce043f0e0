"""What an evaluation says: every figure with its interval, every judge with its interest."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from smpo.evaluation.results.evaluate import evaluate
from smpo.evaluation.results.evaluation import COLUMNS
from smpo.evaluation.results.format import decimals
from smpo.evaluation.statistics.paired import compare, holm
from tests.evaluation.toys import QUICK, ToyModel, ToyScorer, bright, dark, evaluation, judges, prompts


def test_the_dictionary_holds_every_score_and_is_json() -> None:
    found = evaluation()
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["settings"] == {"guidance": 3.0, "steps": 4, "images": 2, "seed": 7}
    assert (data["prompt_set"], data["role"]) == ("toys", "untouched")
    assert [p["text"] for p in data["prompts"]] == [p.text for p in prompts(30)]
    for judge, row in zip(found.judgements, data["judgements"], strict=True):
        again = compare(np.mean(row["policy"], axis=1), np.mean(row["base"], axis=1))
        assert again == judge.comparison, "the file is enough to compute everything anew"
    assert [row["p_holm"] for row in data["judgements"]] == holm([j.comparison.p_value for j in found.judgements])


def test_metrics_are_flat_finite_and_named_by_reward() -> None:
    metrics = evaluation().metrics()
    for name in ("win_rate", "win_rate_low", "win_rate_high", "mean_base", "mean_policy", "median_base"):
        assert f"eval/judge/{name}" in metrics
    for name in ("median_policy", "gain", "gain_low", "gain_high", "p_value"):
        assert f"eval/reward/{name}" in metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["eval/judge/win_rate_low"] < metrics["eval/judge/win_rate"]
    assert "eval/judge/gain_low" not in evaluation(count=1).metrics(), "absent, not NaN"


def test_the_table_has_a_row_a_judge() -> None:
    rows = evaluation().table()
    assert [tuple(row) for row in rows] == [COLUMNS, COLUMNS]
    assert [row["reward"] for row in rows] == ["reward*", "judge"]
    assert all("[" in row["gain [95 %]"] and "nan" not in str(row) for row in rows)
    assert evaluation(count=1).table()[0]["gain [95 %]"].endswith("[–]")


@pytest.mark.parametrize(("width", "digits"), [(300.0, 0), (3.0, 1), (0.2, 2), (0.0123, 3)])
def test_decimals_follow_the_interval(width: float, digits: int) -> None:
    gains = np.array([-1.0, 1.0] * 50)
    c = compare(gains, 0 * gains)
    scale = width / ((c.gain_high - c.gain_low) / 2)  # type: ignore[operator]
    scaled = compare(gains * scale, 0 * gains)
    assert decimals(scaled.gain, scaled.gain_low, scaled.gain_high) == digits


def test_the_independent_formula_is_believed_first() -> None:
    found = evaluation()
    assert found.judgement().name == "judge"
    assert found.judgement("reward").made_labels
    assert found.warnings == ()
    headline = found.headline()
    assert headline.startswith("The policy beats its base on ") and "judged by `judge`." in headline
    assert "30 untouched prompts (95 % interval" in headline


@pytest.mark.parametrize(
    ("training_reward", "learned", "believed"),
    [
        ("bright-1", {}, "d"),  # both learned: the one that made the labels is doubted most
        ("dark-1", {}, "b"),
        ("bright-1", {"b": False}, "b"),  # a formula is the goal itself, not a stand-in
        ("bright-1", {"b": False, "d": False}, "b"),
        (None, {}, "b"),
    ],
)
def test_who_is_believed(training_reward: str | None, learned: dict[str, bool], believed: str) -> None:
    scorers = {"b": bright(), "d": dark()}
    asked = judges(scorers, training_reward, **learned)
    found = evaluate(ToyModel(), prompts(), scorers, settings=QUICK, judges=asked)  # type: ignore[arg-type]
    assert found.judgement().name == believed


def test_the_only_judge_may_not_have_made_the_labels() -> None:
    scorers = {"b": bright()}
    asked = judges(scorers, "bright-1")
    found = evaluate(ToyModel(), prompts(), scorers, settings=QUICK, judges=asked)  # type: ignore[arg-type]
    found = replace(found, role="tuning")
    assert "the only judge, `b`, also made the training labels" in found.warnings[0]
    assert "these prompts are for tuning" in found.warnings[1]
    assert found.headline().endswith("judged by `b`, which also made the training labels.")


def test_a_reward_that_rises_while_others_fall_is_called_out() -> None:
    scorers = {"b": bright(), "d": dark()}
    asked = judges(scorers, "bright-1")
    found = evaluate(ToyModel(), prompts(40), scorers, settings=QUICK, judges=asked)  # type: ignore[arg-type]
    assert "reward hacking" in found.warnings[0]
    assert found.headline().startswith("The policy is worse than its base: it wins on only ")


def test_no_difference_says_how_many_prompts_would_settle_it() -> None:
    found = evaluate(ToyModel(shift=0, spread=9), prompts(20), {"b": bright()}, settings=QUICK)  # type: ignore[arg-type]
    assert found.headline().startswith("No difference is resolved")
    assert "such prompts would settle it to ±2 points" in found.headline()


def test_nothing_finite_is_said_in_words() -> None:
    mute = ToyScorer("mute", lambda picture: float("nan"))
    found = evaluate(ToyModel(), prompts(3), {"mute": mute}, settings=QUICK)  # type: ignore[arg-type]
    assert found.headline().startswith("Nothing can be said: `mute`")
    assert not [name for name in found.metrics() if name.startswith("eval/")]
    assert set(found.table()[0].values()) == {"mute", "–"}
    json.dumps(found.to_dict(), allow_nan=False)
