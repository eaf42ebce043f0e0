"""The scripts that make the shapes weights: documented as they are run, and whole."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tools.make_shapes.__main__ import STAGES, make

README = Path(__file__).parents[2] / "smpo" / "worlds" / "shapes" / "README.md"


def test_the_readme_names_every_stage_as_it_is_run() -> None:
    text = " ".join(README.read_text().split())
    for stage in STAGES:
        assert f"tools.make_shapes.{stage.maker} {stage.words}" in text, stage.name


def _small(words: str) -> str:
    told = shlex.split(words)
    for at, word in enumerate(told):
        if word == "--steps":
            told[at + 1] = "8" if "parquet" in words else "3"
    return " ".join(told)


@pytest.mark.slow
def test_from_nothing_to_all_that_ships_and_on_after_a_stop(tmp_path: Path) -> None:
    stages = [replace(stage, words=_small(stage.words)) for stage in STAGES]
    stages[1] = replace(stages[1], words=f"{stages[1].words} --scenes 192")
    with pytest.raises(Exception, match="returned non-zero"):
        make(tmp_path, [*stages[:2], replace(stages[2], words="--split nowhere")])
    began = (tmp_path / "vae" / "config.json").stat().st_mtime_ns
    weights = make(tmp_path, stages)
    assert (tmp_path / "vae" / "config.json").stat().st_mtime_ns == began, "a stage that had ended ran again"
    made = {str(f.relative_to(weights)) for f in weights.rglob("*") if f.is_file()}
    shipped = README.parent / "weights"
    assert made == {str(f.relative_to(shipped)) for f in shipped.rglob("*") if f.is_file()}
    assert not re.search(str(tmp_path), (weights / "base" / "model_index.json").read_text())
