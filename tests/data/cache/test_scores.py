"""Scores are computed once, survive a kill, and two processes agree about them."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
import torch

from smpo.data.cache.scores import ScoreTable
from smpo.errors import RunError
from smpo.kinds import Pair
from smpo.rewards.ensemble import EnsembleScorer, Population
from tests.data.worlds import Judge, Points


def test_scores_come_in_the_order_of_the_table(tmp_path: Path) -> None:
    table, judge = Points(), Judge()
    winner, loser, stats = ScoreTable(tmp_path / "scores.sqlite").ensure(table, judge, batch=3)
    assert winner.tolist() == [float(table.picture(pair.winner)[0]) for pair in table.pairs]
    assert loser.tolist() == [float(table.picture(pair.loser)[0]) for pair in table.pairs]
    both = torch.cat([winner, loser])
    assert (stats.low, stats.high, stats.count) == (both.min(), both.max(), 20)


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    table, judge = Points(), Judge()
    table.pairs += [Pair("again", "prompt 0", table.pairs[0].winner, table.pairs[4].winner, 1.0)] * 3
    scores = ScoreTable(tmp_path / "scores.sqlite")
    assert scores.missing(table, "judge") == 20
    first = scores.ensure(table, judge, batch=4)
    assert judge.asked == 20, "pairs 0 and 4 share a prompt, so the added pair needs no new score"
    second = ScoreTable(tmp_path / "scores.sqlite").ensure(table, judge)
    assert judge.asked == 20 and torch.equal(first[0], second[0])
    assert scores.missing(table, "judge") == 0 and scores.missing(table, "another") == 20


def test_an_ensemble_asks_its_members_only_for_what_is_not_known(tmp_path: Path) -> None:
    table, one, other = Points(), Judge("one"), Judge("other")
    scores = ScoreTable(tmp_path / "scores.sqlite")
    scores.ensure(table, one, provenance={"who": "one"})
    halves = [(one, Population()), (other, Population(weight=3.0))]
    mixed = scores.ensure(table, EnsembleScorer(halves, "sum"), batch=3, provenance={"who": "both"})
    assert (one.asked, other.asked) == (20, 20), "what the first says was known"
    alone = scores.ensure(table, other)
    assert other.asked == 20, "and now what the second says is, too"
    ranked = EnsembleScorer([(member, Population(knots=(-1.0, 1.0))) for member, _ in halves], "rank")
    scores.ensure(table, ranked)
    assert (one.asked, other.asked) == (20, 20), "another rule asks nobody"
    fresh = ScoreTable(tmp_path / "other.sqlite").ensure(table, EnsembleScorer(halves, "sum"), batch=20)
    assert torch.equal(mixed[0], fresh[0]) and torch.equal(mixed[1], fresh[1])
    assert torch.equal(alone[0], scores.read(table, "one")[0]), "both judges are the first coordinate"
    told = {key: [facts["who"] for facts in scores.provenance(key)] for key in ("one", "other")}
    assert told == {"one": ["one"], "other": ["both"]}


def test_an_ensemble_that_is_killed_keeps_what_its_members_said(tmp_path: Path) -> None:
    table, one, scores = Points(), Judge("one"), ScoreTable(tmp_path / "scores.sqlite")
    dying = EnsembleScorer([(one, Population()), (Judge("other", dies_after=6), Population())], "sum")
    with pytest.raises(KeyboardInterrupt):
        scores.ensure(table, dying, batch=4)
    assert scores.missing(table, dying.key) == 16 and scores.missing(table, "one") == 12


def test_a_prompt_is_part_of_the_score(tmp_path: Path) -> None:
    table, judge = Points(pairs=1), Judge()
    table.pairs.append(Pair("other", "another prompt", table.pairs[0].winner, table.pairs[0].loser, 1.0))
    ScoreTable(tmp_path / "scores.sqlite").ensure(table, judge)
    assert judge.asked == 4


def test_a_kill_loses_one_batch_at_most(tmp_path: Path) -> None:
    table, scores, seen = Points(), ScoreTable(tmp_path / "scores.sqlite"), []
    with pytest.raises(KeyboardInterrupt):
        scores.ensure(table, Judge(dies_after=13), batch=4, progress=lambda *args: seen.append(args))
    assert seen == [("scoring", 4, 20), ("scoring", 8, 20), ("scoring", 12, 20)]
    assert scores.missing(table, "judge") == 8
    judge = Judge()
    resumed = scores.ensure(table, judge, batch=4)
    assert judge.asked == 8
    whole = ScoreTable(tmp_path / "other.sqlite").ensure(table, Judge(), batch=7)
    assert torch.equal(resumed[0], whole[0]) and torch.equal(resumed[1], whole[1]) and resumed[2] == whole[2]


def test_scores_that_are_not_numbers_are_refused_by_name(tmp_path: Path) -> None:
    table = Points()
    bad = table.pairs[3].loser
    scores = ScoreTable(tmp_path / "scores.sqlite")
    with pytest.raises(RunError, match=bad):
        scores.ensure(table, Judge(nan_at=float(table.picture(bad)[0])), batch=2)
    assert scores.missing(table, "judge") == 14, "batches before the bad one stay"


def test_reading_needs_all_scores_and_no_scorer(tmp_path: Path) -> None:
    table, scores = Points(), ScoreTable(tmp_path / "scores.sqlite")
    with pytest.raises(RunError, match="20 scores of judge are missing"):
        scores.read(table, "judge")
    scores.ensure(table, Judge())
    assert scores.read(table, "judge")[2].count == 20


def test_extremes_are_stored_with_their_provenance(tmp_path: Path) -> None:
    table = Points()
    _, _, stats = ScoreTable(tmp_path / "scores.sqlite").ensure(table, Judge())
    rows = sqlite3.connect(tmp_path / "scores.sqlite").execute("SELECT * FROM extremes").fetchall()
    assert rows == [("judge", table.digest, stats.low, stats.high, 20)]


def _score(path: Path, key: str, gate: object, answers: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    judge = Judge(key)
    winner, _, _ = ScoreTable(path).ensure(Points(pairs=60), judge, batch=5)
    answers.put((judge.asked, float(winner.sum())))  # type: ignore[attr-defined]


@pytest.mark.parametrize("keys", [("judge", "judge"), ("judge", "other")])
def test_two_processes_share_one_table(tmp_path: Path, keys: tuple[str, str]) -> None:
    context = multiprocessing.get_context("fork")  # spawned ones would each import torch again
    gate, answers = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=_score, args=(tmp_path / "new" / "scores.sqlite", key, gate, answers)) for key in keys
    ]
    for process in both:
        process.start()
    results = [answers.get(timeout=30) for _ in both]
    for process in both:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert results[0][1] == results[1][1]
    assert sorted(asked for asked, _ in results) == ([0, 120] if keys[0] == keys[1] else [120, 120])
