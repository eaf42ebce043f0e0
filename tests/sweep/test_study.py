"""Taking, ending, losing and taking again, on one journal."""

import time

import pytest

from smpo.app.sweep.request import SweepRequest, resolve_sweep
from smpo.app.sweep.study import open_prepared, say_what
from smpo.sweep.identity import study_id
from smpo.sweep.study import WORKER_DEATHS
from tests.sweep.words import SWEEP, resolved, small, write


def study_of(tmp_path, worker="here-1-a", sweep=SWEEP):
    return open_prepared(small(tmp_path, sweep), worker=worker)


def test_the_first_trial_is_the_spec_and_the_creator_is_one(tmp_path):
    study, created = study_of(tmp_path)
    again, created_again = study_of(tmp_path, "here-2-b")
    assert (created, created_again) == (True, False)
    trial, values = again.take(5)
    assert values["objective.beta"] == 500.0 and values["smoothing"] == "likelihood"
    study.end(trial, "done", "done", values=[0.5])
    assert study.counts().done == 1


def test_never_more_than_wanted(tmp_path):
    study, _ = study_of(tmp_path)
    taken = [study.take(3) for _ in range(5)]
    assert [one is not None for one in taken] == [True, True, True, False, False]
    study.end(taken[0][0], "failed", "crashed", "a bug")
    assert study.take(3) is not None
    assert study.take(3) is None


def test_a_lost_trial_is_tried_again_a_bounded_number_of_times(tmp_path):
    study, _ = study_of(tmp_path)
    other, _ = study_of(tmp_path, "here-2-b")
    params = None
    for attempt in range(WORKER_DEATHS + 1):
        trial, values = other.take(1)
        assert params in (None, values)
        params = values
        assert study.reap({"here-2-b": True}) == []
        lost = study.reap({"here-2-b": False})
        assert [one.number for one in lost] == [trial.number]
        assert study.reap({"here-2-b": False}) == []
        assert not other.end(trial, "done", "done", values=[1.0]), "it was taken back"
        assert study.counts().waiting == (1 if attempt < WORKER_DEATHS else 0)
    trials = study.trials()
    assert [one.outcome for one in trials] == ["lost"] * WORKER_DEATHS + ["killed"]
    assert study.counts().failed == 1, "the last is a failure that a reader sees, and no trial is dropped silently"


def test_leases_decide_where_workers_cannot_be_seen(tmp_path, monkeypatch):
    study, _ = study_of(tmp_path)
    other, _ = study_of(tmp_path, "elsewhere-9-c")
    trial, _ = other.take(1)
    assert study.reap({}) == []
    later = time.time() + 1000
    monkeypatch.setattr("smpo.sweep.study.time.time", lambda: later)
    other.renew(trial)
    assert study.reap({}) == []
    monkeypatch.setattr("smpo.sweep.study.time.time", lambda: later + 1000)
    assert [one.number for one in study.reap({})] == [trial.number]


def test_a_worker_that_died_while_it_asked_loses_no_settings(tmp_path, monkeypatch):
    study, _ = study_of(tmp_path)
    study.optuna.ask()  # the spec as it stands, which is in line; killed before a lease was written
    later = time.time() + 1000
    monkeypatch.setattr("smpo.sweep.study.time.time", lambda: later)
    (lost,) = study.reap({})
    trial, values = study.take(1)
    assert trial.user_attrs["again"] == lost.number and values["objective.beta"] == 500


def test_an_interrupted_trial_costs_no_retry(tmp_path):
    study, _ = study_of(tmp_path)
    for _ in range(5):
        trial, values = study.take(1)
        study.give_back(trial, "interrupted", "Ctrl-C")
    trial, again = study.take(1)
    assert again == values
    assert study.counts().finished == 0


def test_an_interrupted_sweep_proposes_what_an_uninterrupted_one_does(tmp_path):
    def run(folder, stops):
        folder.mkdir()
        found = []
        for number in range(16):
            if number in stops or number == 0:
                study, _ = study_of(folder)
            trial, values = study.take(16)
            found.append(values)
            study.end(trial, "done", "done", values=[float(number % 5)])
        return found

    assert run(tmp_path / "a", ()) == run(tmp_path / "b", (3, 12))


def test_the_study_is_named_by_what_is_searched_and_wanted(tmp_path):
    def name(sweep=SWEEP, sets=()):
        one = resolve_sweep(SweepRequest(write(tmp_path, sweep), sets=sets))
        return study_id(one.resolved, one.sweep)

    same = name()
    assert name(SWEEP + "  trials: 7\n  sampler: random\n") == same
    assert name(sets=("objective.beta=700", "train.lr=1e-5")) == same, "what is searched is no part of the base"
    assert name(sets=("runtime.threads=2",)) == same
    assert name(sets=("train.steps=5",)) != same
    assert name(SWEEP.replace("[100, 5000]", "[100, 6000]")) != same
    assert name(SWEEP.replace("maximise", "minimise")) != same


def test_another_space_says_what_is_different(tmp_path):
    from tests.sweep.words import Quiet

    study_of(tmp_path)
    prepared = small(tmp_path, SWEEP.replace("[100, 5000]", "[100, 6000]"))
    study, created = open_prepared(prepared, worker="here-1-a")
    screen = Quiet()
    say_what(prepared, study, created, screen)
    assert "objective.beta: 100 … 5000 (log) → 100 … 6000 (log)" in " ".join(screen.said)


@pytest.mark.parametrize(
    "sampler", ["tpe", "random", "gp", "qmc", "{use: nsga2, population: 4}", "{use: nsga3, population: 4}"]
)
def test_every_sampler_proposes_sound_specs(tmp_path, sampler):
    sweep = SWEEP + f"  sampler: {sampler}\n"
    study, _ = study_of(tmp_path, sweep=sweep)
    for number in range(12):
        trial, values = study.take(12)
        resolved(tmp_path / "small.yaml", study.sweep.space.settings(values))
        study.end(trial, "done", "done", values=[float(number)])
    assert study.counts().done == 12


def test_a_grid_is_walked_once(tmp_path):
    sweep = (
        "sweep:\n  maximise: eval/plane-radius/gain\n  sampler: grid\n  first: []\n  search:\n"
        "    smoothing: {choice: [hard, label, likelihood]}\n    train.batch: {int: [8, 16], step: 8}\n"
    )
    study, _ = study_of(tmp_path, sweep=sweep)
    seen = []
    for _ in range(6):
        trial, values = study.take(6)
        seen.append(tuple(values.values()))
        study.end(trial, "done", "done", values=[0.0])
    assert len(set(seen)) == 6


GRID = (
    "sweep:\n  maximise: eval/plane-radius/gain\n  sampler: grid\n  first: []\n  search:\n"
    "    smoothing: {choice: [hard, label, likelihood]}\n    train.batch: {int: [8, 16], step: 8}\n"
)


def test_a_point_of_a_grid_that_failed_is_tried_again_and_none_twice(tmp_path):
    """A first call times out at half of the points; the second finds every point, each finished once."""
    study, _ = study_of(tmp_path, sweep=GRID)
    for number in range(6):
        trial, _ = study.take(6)
        if number % 2:
            study.end(trial, "done", "done", values=[0.0])
        else:
            study.end(trial, "failed", "timed out")
    study, _ = study_of(tmp_path, sweep=GRID)  # another call
    assert not study.exhausted(study.trials())
    while (taken := study.take(6)) is not None:
        study.end(taken[0], "done", "done", values=[0.0])
    done = [tuple(sorted(trial.params.items())) for trial in study.trials() if trial.state == "done"]
    assert len(done) == len(set(done)) == 6


def test_a_grid_whose_points_fail_ends(tmp_path):
    study, _ = study_of(tmp_path, sweep=GRID)
    number = 0
    while (taken := study.take(6)) is not None:
        study.end(taken[0], "failed", "crashed", "always")
        number += 1
    assert number == 12 and study.exhausted(study.trials()), "each is tried twice"


def test_failures_of_an_earlier_call_do_not_stop_a_new_one(tmp_path):
    study, _ = study_of(tmp_path)
    for _ in range(5):
        trial, _ = study.take(20)
        study.end(trial, "failed", "timed out", "slow")
    assert len(study.failures_in_a_row(study.trials())) == 5
    assert study.failures_in_a_row(study.trials(), time.time()) == []


def test_what_gives_intermediate_values_their_meaning_names_the_study(tmp_path):
    def name(words):
        one = resolve_sweep(SweepRequest(write(tmp_path, SWEEP + words), sets=("train.holdout=40",)))
        return study_id(one.resolved, one.sweep)

    pruned = "  prune: median\n  rungs: {at: [2], prompts: 8}\n"
    names = {
        name(""), name(pruned), name(pruned.replace("8", "16")), name(pruned.replace("[2]", "[3]")),
        name("  prune: median\n  rungs: {at: [2], prompts: 0, by: holdout/accuracy}\n"),
        name("  prune: median\n  report: train/loss\n"), name("  prune: median\n  report: train/margin\n"),
    }  # fmt: skip
    assert len(names) == 7


def test_a_front_of_two_objectives(tmp_path):
    sweep = SWEEP + "  minimise: seconds/train\n"
    study, _ = study_of(tmp_path, sweep=sweep)
    for values in ([1.0, 5.0], [2.0, 5.0], [0.5, 1.0], [0.4, 2.0]):
        trial, _ = study.take(9)
        study.end(trial, "done", "done", values=values)
    assert [one.number for one in study.best()] == [1, 2]


def test_a_trial_beyond_a_constraint_is_never_the_best(tmp_path):
    sweep = SWEEP + "  constraints: {eval/plane-on-axis/gain: {min: -0.1}}\n"
    study, _ = study_of(tmp_path, sweep=sweep)
    for value, excess in ((1.0, -0.05), (9.0, 0.3)):
        trial, _ = study.take(9)
        trial.set_constraint("eval/plane-on-axis/gain", excess)
        study.end(trial, "done", "done", values=[value])
    assert [one.values for one in study.best()] == [(1.0,)]
