"""Only visited pairs are scored and encoded, a portion before its updates; however it is done, the results are one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.app.build import portions
from smpo.app.build.build import build_run
from smpo.app.build.live import LiveRun
from smpo.data.cache.scores import ScoreTable
from smpo.engine.loop import fit
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.kinds import Runtime
from smpo.registry.resolve import resolve
from smpo.rewards.networks.clip_like import ClipScorer
from tests.devices.launching import SHAPES, SMPO, ran
from tests.devices.test_preparing import rows, scores

RANGE = ("smoothing.low=0", "smoothing.high=0.5")
"""With the range given, p of a pair depends on its own scores alone."""
LONGER = ("data.limit=60", "train.steps=6", "train.batch=4", "runtime.encode_batch=4", "inversion.steps=1")


@pytest.fixture(autouse=True)
def portions_of_two_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "PORTION", 8)


def spec_of(folder: Path, *sets: str) -> ExperimentSpec:
    (folder / "small.yaml").write_text(SHAPES)
    cache = f"runtime.cache={folder / 'cache'}"
    return resolve(folder / "small.yaml", skeleton=ExperimentSpec, sets=[*LONGER, cache, *sets]).spec


def live(folder: Path, *sets: str, **named: Any) -> LiveRun:
    folder.mkdir(exist_ok=True)
    told = {"progress": lambda *_: None, "say": lambda _: None, **named}
    return build_run(spec_of(folder, *sets), report=None, **told)


def trained(folder: Path, *sets: str) -> tuple[LiveRun, list[float]]:
    made = live(folder, *RANGE, *sets)
    return made, [report.metrics["loss"] for report in fit(made.session)]


def test_workers_and_portions_change_no_bit(tmp_path: Path) -> None:
    ways = {
        "first": ("runtime.prepare=first", "runtime.workers=0"),
        "ahead": ("runtime.prepare=ahead", "runtime.workers=0"),
        "ahead, 1": ("runtime.prepare=ahead", "runtime.workers=1"),
        "ahead, 2": ("runtime.prepare=ahead", "runtime.workers=2"),
    }
    found = {name: trained(tmp_path / name, *sets) for name, sets in ways.items()}
    base, losses = found["first"]
    known, _ = rows(tmp_path / "first" / "cache")
    assert len(known) > 40 and len(set(losses)) == 6
    for name, (made, curve) in found.items():
        assert curve == losses, name
        again, _ = rows(tmp_path / name / "cache")
        assert again.keys() == known.keys() and all(torch.equal(again[key], known[key]) for key in known), name
        assert scores(tmp_path / name / "cache") == scores(tmp_path / "first" / "cache"), name
        for one, other in zip(made.parameters.values(), base.parameters.values(), strict=True):
            assert torch.equal(one, other), name


def test_only_what_is_visited_is_scored_in_the_order_of_visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    score = ClipScorer.score

    def counted(self: ClipScorer, inputs: Any, prompts: Any) -> Any:
        asked.append(len(inputs))
        return score(self, inputs, prompts)

    monkeypatch.setattr(ClipScorer, "score", counted)
    made = live(tmp_path, *RANGE)
    order = [sample.row for step in range(2) for sample in made.loader.samples(step)]
    assert sum(asked) == 2 * len(set(order)) <= 16, "the first portion, before the first update"
    assert made.p.isnan().sum() == len(made.table) - len(set(order))
    updates = fit(made.session)
    next(updates), next(updates)
    assert sum(asked) <= 16, "two updates need no more"
    next(updates)
    assert 16 < sum(asked) <= 32, "the third is of the next portion"
    list(updates)
    visited = {sample.row for step in range(6) for sample in made.loader.samples(step)}
    images = {name for row in visited for name in (made.table[row].winner, made.table[row].loser)}
    assert {image for image, _, _ in scores(tmp_path / "cache")} == images
    assert len(visited) < len(made.table) == 60


def test_statistics_over_the_table_need_all_of_it(tmp_path: Path) -> None:
    made = live(tmp_path)
    assert not made.p.isnan().any() and made.stats is not None and made.stats.count == 2 * len(made.table)


def test_single_images_are_drawn_from_all_labels(tmp_path: Path) -> None:
    assert not live(tmp_path, *RANGE, "objective=kto").p.isnan().any()


def test_held_out_pairs_are_the_same_ones_and_scored_first(tmp_path: Path) -> None:
    few = live(tmp_path / "few", *RANGE, "train.holdout=5")
    whole = live(tmp_path / "all", "train.holdout=5")
    assert list(few.holdout.held) == list(whole.holdout.held) and len(few.holdout.held) == 5
    assert not few.p[list(few.holdout.held)].isnan().any() and few.p.isnan().any()


def test_a_label_that_is_not_known_is_never_read(tmp_path: Path) -> None:
    made = live(tmp_path, *RANGE)
    with pytest.raises(AssertionError, match="label isn't known"):
        list(made.loader.batches(5))


def test_going_on_in_the_middle_changes_no_bit(tmp_path: Path) -> None:
    _, losses = trained(tmp_path / "whole")
    half = live(tmp_path / "half", *RANGE)
    updates = fit(half.session)
    assert [next(updates).metrics["loss"] for _ in range(3)] == losses[:3]
    other = live(tmp_path / "half", *RANGE)
    with torch.no_grad():
        for name, parameter in other.parameters.items():
            parameter.copy_(half.parameters[name])
    other.session.optimiser.load_state_dict(half.session.optimiser.state_dict())
    assert [report.metrics["loss"] for report in fit(other.session, 3)] == losses[3:]


def test_a_broken_picture_stops_the_run_and_what_came_before_is_kept(tmp_path: Path) -> None:
    made = live(tmp_path, *RANGE, "runtime.workers=2")
    late = {s.row for s in made.loader.samples(4)} - {s.row for n in range(4) for s in made.loader.samples(n)}
    bad = made.table[min(late)].loser
    read = type(made.table).picture

    def broken(table: Any, image: str) -> Any:
        if image == bad:
            raise RunError(f"image {image} can't be decoded: truncated")
        return read(table, image)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(made.table), "picture", broken)
        done = []
        with pytest.raises(RunError, match=bad):
            done += [report.step for report in fit(made.session)]
            done += [report.step for report in fit(made.session)]
    store = ScoreTable(tmp_path / "cache" / "scores.db")
    assert made.session.applied == 4 and made.reward_key is not None
    assert store.missing(made.table, made.reward_key) < 2 * len(made.table)


@pytest.mark.parametrize("rows", [None, [3, 1, 2]])
def test_scores_of_some_rows_are_those_of_the_table(tmp_path: Path, rows: list[int] | None) -> None:
    made = live(tmp_path)
    spec = spec_of(tmp_path)
    assert spec.reward is not None
    scorer = spec.reward.load(Runtime(batch=4))
    whole = ScoreTable(tmp_path / "cache" / "scores.db").read(made.table, scorer.key)
    store = ScoreTable(tmp_path / "other.db")
    winner, loser, stats = store.ensure(made.table, scorer, 4, rows=rows, workers=2)
    picked = list(range(len(made.table))) if rows is None else rows
    assert torch.allclose(winner, whole[0][picked]) and torch.allclose(loser, whole[1][picked])
    assert stats.count == 2 * len(picked)


SMALLER = """\
from smpo.app.build import portions

portions.PORTION = 8
"""
"""Local code of a spec, which every process of its run imports."""


def test_two_processes_prepare_portions_together(tmp_path: Path) -> None:
    (tmp_path / "smaller.py").write_text(SMALLER)
    (tmp_path / "small.yaml").write_text(SHAPES + "uses: [./smaller.py]\n")
    words = [f"--set={one}" for one in (*RANGE, *LONGER, "train.flip=true")]
    for name, extra in (("two", "--devices=2"), ("one", "--set=runtime.workers=0")):
        sets = (f"--set=runtime.cache={name}", f"--set=runtime.runs=runs-{name}")
        said = ran(*SMPO, "run", "small.yaml", "-q", "--trust-code", *words, *sets, extra, folder=tmp_path)
        assert said.returncode == 0, said.stderr
        seconds = json.loads(next(tmp_path.glob(f"runs-{name}/small/*/cost.json")).read_text())["seconds"]
        assert seconds["score"] > 0 and seconds["encode"] > 0
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    assert 16 < len(scores(tmp_path / "one")) <= 48, "three portions of eight visits, of sixty pairs"
    (one, files), (two, shared) = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert shared > files, "each process has written some"


def test_pictures_at_an_address_are_read_once_in_storage_order(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "data={use: pickapic, path: 'hf://datasets/somebody/pairs'}")
    assert portions.updates_together(spec) == spec.train.steps
    assert portions.updates_together(spec_of(tmp_path)) == 2
