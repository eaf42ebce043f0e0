"""Grids show what they say they show, whatever the pictures' size; somebody has looked at them once, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from smpo.errors import RunError
from smpo.evaluation.report.grid import CELL, GAP, SIDE, before_after, chosen_prompts, contact_sheet
from smpo.evaluation.results.evaluate import evaluate
from smpo.evaluation.results.evaluation import Evaluation
from smpo.kinds import Prompt
from tests.evaluation.toys import QUICK, ToyPlane, ToyScorer, evaluation


def shown_gains(found: Evaluation, rows: int) -> list[float]:
    judge = found.judgement()
    return [float(judge.policy[p, 0] - judge.base[p, 0]) for p in chosen_prompts(found, rows=rows)]


def test_rows_run_from_the_largest_gain_to_the_largest_loss() -> None:
    found = evaluation(settings=replace(QUICK, keep=30))
    everything = shown_gains(found, 30)
    assert everything == sorted(everything, reverse=True)
    some = shown_gains(found, 5)
    assert (some[0], some[-1]) == (everything[0], everything[-1])
    assert some == [everything[k] for k in (0, 7, 14, 22, 29)]
    assert shown_gains(found, 1) == [everything[15]]
    assert len(chosen_prompts(evaluation(), rows=8)) == 4, "no more than were kept"


@pytest.mark.parametrize("rows", [1, 4, 5, 8])
def test_the_grid_holds_the_pictures_unsmoothed(rows: int) -> None:
    found = evaluation(settings=replace(QUICK, keep=30))
    grid = before_after(found, title="smpo", rows=rows)
    assert grid.mode == "RGB" and grid.width == GAP + (1 if rows <= 4 else 2) * (CELL + GAP)
    colours = {colour for _, colour in grid.getcolors(maxcolors=1 << 24)}  # type: ignore[union-attr]
    for number in chosen_prompts(found, rows=rows):
        for kept in (found.kept_base, found.kept_policy):
            assert kept[number][0].getpixel((0, 0)) in colours  # type: ignore[union-attr]


def test_odd_pictures_and_long_words_fit() -> None:
    found = evaluation()
    wide, grey = Image.new("RGB", (1024, 300), "red"), Image.new("L", (17, 40), 128)
    endless = replace(
        found,
        prompts=tuple(Prompt("wörd " * 300 if k % 2 else "x" * 500) for k in range(30)),
        kept_base={k: [wide] for k in found.kept_base},
        kept_policy={k: [grey] for k in found.kept_policy},
    )
    grid = before_after(endless, title="a title that goes on " * 20)
    assert grid.width == GAP + CELL + GAP
    with pytest.raises(RunError, match="none were kept"):
        before_after(replace(found, kept_base={}, kept_policy={}))


def plane(count: int = 16) -> Evaluation:
    asked = [Prompt(f"condition {k % 8}", group=str(k), category=f"condition {k % 8}") for k in range(count)]
    far = ToyScorer("far", lambda point: float(np.linalg.norm(point)))  # type: ignore[arg-type]
    return evaluate(ToyPlane(), asked, {"far": far}, settings=QUICK)  # type: ignore[arg-type]


def test_points_become_a_scatter_plot() -> None:
    plot = before_after(plane(), title="smpo in the plane")
    assert plot.size[0] > 2 * 400
    coloured = sum(n for n, c in plot.getcolors(maxcolors=1 << 24) if max(c) - min(c) > 120)  # type: ignore
    assert coloured > 200, "the policy's points are coloured"
    assert plot.tobytes() == before_after(plane(), title="smpo in the plane").tobytes()


def test_runaways_and_lone_points_do_not_break_the_frame() -> None:
    found = plane()
    far = {**found.kept_policy, 3: [np.array([1e9, np.nan], dtype=np.float32)] * 2}
    assert before_after(replace(found, kept_policy=far)).mode == "RGB"
    same = dict.fromkeys(found.kept_base, [np.zeros(2, dtype=np.float32)] * 2)
    assert before_after(replace(found, kept_base=same, kept_policy=same)).mode == "RGB"


def test_contact_sheets() -> None:
    sheet = contact_sheet([Image.new("RGB", (8, 8), "red")] * 6, ["a prompt of many words " * 9] * 6)
    assert sheet.width == GAP + 4 * (SIDE + GAP) and sheet.getpixel((GAP + 9, GAP + 9)) == (255, 0, 0)
    assert contact_sheet([np.ones(2)] * 3, ["a", "b", "a"]).mode == "RGB"
    with pytest.raises(RunError, match="no pictures"):
        contact_sheet([], [])
