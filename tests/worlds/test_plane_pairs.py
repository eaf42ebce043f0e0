"""The plane's pairs and judges: what a run trains on and is judged by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from smpo.errors import MachineError
from smpo.worlds.plane.pairs import PAIRS, point_id, read_plane_pairs
from smpo.worlds.plane.scorers import OnAxisScorer, RadialScorer
from tools.plane_world import Votes, write_pairs


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four pairs: a clear win for the first, one for the second, a split vote, and "can't say"."""
    path = tmp_path / "pairs.safetensors"
    first = np.array([[1.0, 0.0], [0.1, 0.0], [0.5, 0.0], [0.7, 0.1]])
    votes = np.array([[2, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=np.uint8)
    write_pairs(path, first, first[::-1] + 0.01, np.array([0, 1, 2, 3]), Votes(*votes.T), seed=0)
    return path


def test_majorities_make_winners(four: Path) -> None:
    table = read_plane_pairs(four)
    assert [pair.prompt for pair in table] == ["east", "north-east"]
    assert [(pair.share, pair.votes) for pair in table] == [(1.0, 2), (0.75, 2)]
    assert np.allclose(table.picture(table[0].winner), [1.0, 0.0])
    assert np.allclose(table.picture(table[1].loser), [0.1, 0.0])


def test_the_report_counts_every_row(four: Path, tmp_path: Path) -> None:
    table = read_plane_pairs(four, limit=1, report=tmp_path / "report.json")
    assert table.report == {
        "rows": 7,
        "pairs": 1,
        "votes": 2,
        "ties": 2,
        "tied_pairs": 2,
        "dropped": {"over_limit": 2, "tie": 3},
    }
    assert table.report["rows"] == table.report["votes"] + sum(table.report["dropped"].values())
    listed = json.loads((tmp_path / "report.json").read_text())["dropped_pairs"]
    assert [entry["pair"] for entry in listed] == ["plane-00001", "plane-00002", "plane-00003"]


def test_ties_can_stay_with_an_even_share(four: Path) -> None:
    table = read_plane_pairs(four, ties="keep")
    assert [pair.share for pair in table] == [1.0, 0.75, 0.5, 0.5]
    assert table.report["dropped"] == {}


def test_the_digest_is_of_what_is_trained_on(four: Path) -> None:
    assert read_plane_pairs(four).digest == read_plane_pairs(four, limit=2).digest
    assert read_plane_pairs(four).digest != read_plane_pairs(four, ties="keep").digest


def test_missing_pairs_are_named_with_the_way_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as told:
        read_plane_pairs(tmp_path / "none.safetensors")
    assert "tools.make_plane" in str(told.value.help)


def test_shipped_pairs_are_noisy_and_clear_in_the_right_measure() -> None:
    """Simulated people contradict the reward as real ones do: mostly on pairs that look alike."""
    table, reward = read_plane_pairs(PAIRS), RadialScorer()
    prompts = [pair.prompt for pair in table]
    gap = reward([table.picture(p.winner) for p in table], prompts) - reward(
        [table.picture(p.loser) for p in table], prompts
    )
    assert 3000 < len(table) < 4000 and 0.03 < table.report["tied_pairs"] / 4000 < 0.2
    flipped = (gap < 0).double()
    assert 0.05 < flipped.mean() < 0.25
    assert flipped[gap.abs() < 0.15].mean() > 0.25
    assert flipped[gap.abs() > 0.5].mean() < 0.02
    assert {pair.votes for pair in table} == {1, 2, 3}


def test_ids_are_of_content() -> None:
    point = np.array([0.5, 0.25])
    assert point_id(point.astype(np.float32)) == point_id(point.astype(np.float32).copy())
    assert point_id(point.astype(np.float32)) != point_id(np.array([0.5, 0.26], dtype=np.float32))


def test_judges_read_coordinates() -> None:
    points = [np.array([1.0, 0.2]), np.array([1.0, 0.2])]
    assert torch.allclose(RadialScorer()(points, ["east", "north"]), torch.tensor([1.0, 0.2]))
    assert torch.allclose(OnAxisScorer()(points, ["east", "north"]), torch.tensor([-0.2, -1.0]))
    assert torch.allclose(RadialScorer(scale=3)(points, ["east", "west"]), torch.tensor([3.0, -3.0]))


def test_judges_say_which_they_are_and_ignore_the_batch() -> None:
    points = list(np.random.default_rng(0).standard_normal((9, 2)))
    prompts = ["north", "east", "south-west"] * 3
    for judge in (RadialScorer(), OnAxisScorer()):
        alone = [judge([point], [prompt]) for point, prompt in zip(points, prompts, strict=True)]
        assert torch.equal(torch.cat(alone), judge(points, prompts))
    assert len({RadialScorer().key, RadialScorer(scale=2).key, OnAxisScorer().key}) == 3
