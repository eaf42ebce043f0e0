"""A real file in Pick-a-Pic's schema, where there is one: $SMPO_EMOJI_PAIRS, or beside the repository."""

import os
from pathlib import Path

import pytest

from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.sources.pickapic import count_rows

FOLDER = Path(
    os.environ.get("SMPO_EMOJI_PAIRS") or Path(__file__).resolve().parents[3] / "shared" / "data" / "emoji_pairs"
)

pytestmark = pytest.mark.skipif(not (FOLDER / "train.parquet").exists(), reason="no emoji_pairs here")


def test_known_totals(tmp_path: Path) -> None:
    merged = read_pickapic(FOLDER, split="train", ties="keep", verify="lazy", cache=tmp_path)
    report = merged.report
    assert (report["rows"], report["votes"], report["pairs"], report["ties"]) == (2964, 2964, 1500, 208)
    assert report["dropped"] == {}
    assert set(report["votes_per_pair"]) == {"1", "2", "3"}
    assert 0.7 < report["agreement"] < 0.9
    assert count_rows(FOLDER, "train") == 2964

    decided = read_pickapic(FOLDER, split="train", verify="lazy", cache=tmp_path)
    assert len(decided) == 1500 - report["tied_pairs"]
    assert min(decided[i].share for i in range(len(decided))) > 0.5
    apart = read_pickapic(FOLDER, split="train", votes="separate", verify="lazy", cache=tmp_path)
    assert len(apart) == 2964 - 208
    assert merged.picture(merged[700].loser).size == (64, 64)


def test_the_validation_split() -> None:
    table = read_pickapic(FOLDER, split="validation_unique")
    assert table.report["rows"] == 150 and len(table) == 143
