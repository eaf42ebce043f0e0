"""What remains of a sweep: the confirmation, the best spec, the report, the estimate before."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import smpo.app.sweep.finish as conclude_module
from smpo.app.sweep.confirm import confirmed_lines, interval
from smpo.app.sweep.cost import estimate
from smpo.app.sweep.finish import conclude
from smpo.app.sweep.study import find_study
from smpo.app.sweep.worker import sweep
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.sweep.chart import charts, importance
from smpo.sweep.report import html, table_csv
from tests.cli.words import smpo
from tests.sweep.words import SWEEP, Quiet, small, start_fake


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of a dozen stand-in trials, confirmed and reported."""
    folder = tmp_path_factory.mktemp("finished")
    block = SWEEP + "  constraints: {seconds/train: {max: 400}}\n  confirm: {seeds: 3, set: {evaluate.limit: 3}}\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_TENTHS", "0")
        patch.chdir(folder)
        screen = Quiet()
        prepared = small(folder, block, trials=12, jobs=2)
        ending = sweep(
            prepared,
            screen,
            lambda one, coordinator: conclude(one, coordinator, screen, best=folder / "best.yaml"),
            starter=start_fake,
        )
    return folder, ending


def test_the_best_is_confirmed_beside_the_spec_on_fresh_seeds(finished):
    _, ending = finished
    found = ending.confirmed
    (point,) = found["points"]
    assert found["seeds"] == 3 and len(point["scores"]) == 3
    assert point["curse"] == pytest.approx(point["chosen"] - sum(point["scores"]) / 3)
    gains = [a - b for a, b in zip(point["scores"], found["default"]["scores"], strict=True)]
    assert point["gain"] == pytest.approx(sum(gains) / 3)
    assert point["gain_low"] < point["gain"] < point["gain_high"]
    orders = [json.loads(file.read_text()) for file in (ending.prepared.folder / "orders").glob("*fresh*")]
    assert len(orders) == 6
    assert {one["trial"]["train.seed"] for one in orders} == {1_000_000, 1_000_001, 1_000_002}
    assert all(one["trial"]["evaluate.limit"] == 3 for one in orders)
    assert all(one["rungs"] == [] for one in orders)


def test_the_best_spec_is_the_best_trial(finished):
    folder, ending = finished
    (best,) = ending.study.best()
    assert best.params["objective.beta"] <= 4000  # the constraint: seconds/train is beta / 10
    text = (folder / "best.yaml").read_text()
    found = resolve(folder / "best.yaml", skeleton=ExperimentSpec)
    assert found.identity.spec_hash == best.attributes["spec"]
    assert found.spec.name == "small-best"
    assert f"Trial {best.number} of study" in text and "winner's curse" in text
    assert "found by the sweep" in text
    assert str(folder) not in text.partition("name:")[2].partition("model:")[0]
    assert "runs:" not in text, "where it ran is not what was found"


def test_a_best_spec_that_a_person_has_changed_is_left_alone(finished, monkeypatch):
    folder, ending = finished
    monkeypatch.chdir(folder)
    file, screen = folder / "best.yaml", Quiet()
    written, kept = file.read_text(), ending.prepared.folder / "small-best.yaml"
    assert conclude_module._write_best(ending, ending.study.best(), file, screen) == [file]
    assert file.read_text() == written and not screen.said
    file.write_text(written.replace("batch: 16", "batch: 8"))
    assert conclude_module._write_best(ending, ending.study.best(), file, screen) == [kept]
    assert "batch: 8" in file.read_text() and "is left alone" in screen.said[0]
    file.write_text(written)


def test_a_front_is_confirmed_in_all_its_objectives_and_written_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "0")
    monkeypatch.chdir(tmp_path)
    block = SWEEP.replace("\n  search:", "\n  minimise: seconds/train\n  search:", 1) + "  confirm: {seeds: 2}\n"
    prepared, screen = small(tmp_path, block, trials=6, jobs=2), Quiet()
    ending = sweep(prepared, screen, lambda one, c: conclude(one, c, screen), starter=start_fake)
    front = ending.study.best()
    assert len(front) > 1 and [one["metric"] for one in ending.confirmed["others"]] == ["seconds/train"]
    by_gain = max(front, key=lambda one: one.values[0])
    text = (tmp_path / "experiments" / "small-best.yaml").read_text()
    assert text.startswith(f"# Trial {by_gain.number} of study") and "On the Pareto front of 6 trials" in text
    assert len(list((prepared.folder / "front").glob("*.yaml"))) == len(front)
    assert "seconds/train" in " ".join(confirmed_lines(ending.confirmed))


def test_the_report_is_one_sound_file(finished):
    _, ending = finished
    page = (ending.prepared.folder / "report.html").read_text()
    assert "://" not in page.replace("http://www.w3.org/2000/svg", ""), "it needs nothing from elsewhere"
    for trial in ending.trials:
        assert f">{trial.number}</td>" in page or f"★ {trial.number}</td>" in page
    pictures = charts(ending.study)
    assert {"history", "importance", "slice-objective.beta", "slice-smoothing-label-.epsilon"} & set(pictures) >= {
        "history",
        "importance",
    }
    assert pictures == charts(ending.study), "the same study gives the same pictures"
    for svg in pictures.values():
        ElementTree.fromstring(svg)
    rows = table_csv(ending.study).splitlines()
    assert len(rows) == 1 + len(ending.trials)
    assert sum(importance(ending.study).values()) == pytest.approx(1.0)


def test_the_page_escapes_what_others_wrote(finished):
    _, ending = finished
    assert "<script>" not in html(ending.study, {}, confirmed=["<script>"])


def test_an_estimate_knows_what_was_measured(finished):
    folder, _ = finished
    block = (folder / "small.yaml").read_text().partition("sweep:")[2]
    found = estimate(small(folder, "sweep:" + block, trials=20))
    assert (found.trials, found.confirming, found.corners) == (20, 6, 20)
    assert found.finished >= 12 and found.seconds_per_trial and found.measured
    least, mean, most = found.passes
    assert 0 < least <= mean <= most


def test_an_estimate_before_anything_ran(tmp_path):
    found = estimate(small(tmp_path))
    assert found.seconds_per_trial is None and found.finished == 0
    with pytest.raises(RunError, match="nothing of this sweep"):
        find_study(small(tmp_path))


def test_show_and_plan_as_a_person_types_them(finished, capfd, monkeypatch):
    folder, ending = finished
    monkeypatch.chdir(folder)
    sets = [word for one in ending.prepared.request.sets for word in ("-s", one)]
    said = smpo(capfd, "sweep", "show", "small.yaml", *sets)
    assert said.code == 0, said.err
    assert "★" in said.out and "winner's curse" in said.out and "importance" in said.out
    said = smpo(capfd, "plan", "small.yaml", "--sweep", "--json", *sets)
    assert said.code == 0, said.err
    assert json.loads(said.out)["corners"] == 20
    said = smpo(capfd, "sweep", "small.yaml", "--timeout", "soon", *sets)
    assert said.code == 1 and "is not a time" in said.err


def test_intervals_over_seeds():
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4) and high == pytest.approx(4 - low)
    assert interval([1.0, math.nan])[1:] == (-math.inf, math.inf)
    assert math.isnan(interval([])[0])


def test_lines_that_come_together_count_up(finished, capfd):
    from smpo.cli.sweep_table import Screen

    _, ending = finished
    with Screen(ending.prepared, terminal=False) as screen:
        screen.show(ending.trials[:3], [], ending.counts)  # was there before: nothing is said of it
        screen.show(ending.trials, [], ending.counts)
    lines = [line for line in capfd.readouterr().err.splitlines() if "  trial " in line]
    numbers = [int(line.split("/")[0]) for line in lines]
    assert numbers == sorted(numbers) and numbers[-1] == ending.counts.finished
    assert len(lines) == len(ending.trials) - 3


def test_a_trial_that_broke_a_limit_is_said_to(finished, capfd):
    from smpo.cli.sweep_table import Screen

    _, ending = finished
    done = next(trial for trial in ending.trials if trial.state == "done")
    with Screen(ending.prepared, terminal=False) as screen:
        screen.show([], [], ending.counts)
        screen.show([replace(done, feasible=False)], [], ending.counts)
    assert ", beyond its limits  (" in capfd.readouterr().err
