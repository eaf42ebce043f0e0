"""The search language: what it means, and where its mistakes are shown."""

import pytest

from smpo.diagnostics.render import render
from smpo.spec.problems import SpecProblems
from smpo.sweep.corners import check_corners
from smpo.sweep.corners import corners as corners_of
from smpo.sweep.initial_trials import first_values
from smpo.sweep.read_sweep import read_sweep
from tests.sweep.words import BASE, SWEEP, resolved, write

JUDGES = ["plane-radius", "plane-on-axis"]


def read(tmp_path, sweep=SWEEP):
    return read_sweep(resolved(write(tmp_path, sweep)), JUDGES)


def problems_of(tmp_path, sweep):
    file = write(tmp_path, sweep)
    with pytest.raises(SpecProblems) as caught:
        found = read_sweep(resolved(file), JUDGES)
        check_corners(found.space, lambda settings: resolved(file, settings))
        first_values(found, resolved(file), lambda settings: resolved(file, settings))
    return [
        (one.span.line if one.span else 0, one.path, one.message, one.label) for one in caught.value.problems
    ], render(caught.value.problems)


def test_parameters_are_named_by_their_branch(tmp_path):
    names = [param.name for param in read(tmp_path).space.every()]
    assert names == [
        "objective.beta",
        "train.lr",
        "smoothing",
        "smoothing[label].epsilon",
        "smoothing[likelihood].temperature",
    ]


def test_values_become_settings_of_their_branch_only(tmp_path):
    space = read(tmp_path).space
    values = {
        "objective.beta": 300.0,
        "train.lr": 1e-5,
        "smoothing": "label",
        "smoothing[label].epsilon": 0.2,
    }
    settings = space.settings(values)
    assert settings == {
        "objective.beta": 300.0,
        "train.lr": 1e-5,
        "smoothing": {"use": "label", "epsilon": 0.2},
    }
    spec = resolved(write(tmp_path), settings).spec
    assert (spec.smoothing.use, spec.smoothing.epsilon, spec.objective.beta) == ("label", 0.2, 300.0)
    assert space.settings({**values, "smoothing": "hard"})["smoothing"] == "hard"


def test_optuna_is_asked_for_the_chosen_branch_only(tmp_path):
    import optuna

    space = read(tmp_path).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(30):
        trial = study.ask()
        values = space.suggest(trial)
        assert values == trial.params
        seen.add(frozenset(values))
        resolved(write(tmp_path), space.settings(values))
        study.tell(trial, 0.0)
    assert len(seen) == 3


def test_corners_hold_every_bound_and_choice(tmp_path):
    space = read(tmp_path).space
    corners = list(corners_of(space))
    for param in space.every():
        for value, _ in param.bounds():
            assert any(corner.get(param.name) == value for corner in corners), (param.name, value)
    assert len(corners) == 2 * 2 * (1 + 2 + 2)


def test_many_parameters_are_cornered_one_by_one_and_in_pairs(tmp_path):
    search = "".join(
        f"    train.{name}: {{uniform: [{low}, {high}]}}\n"
        for name, low, high in (("lr", 0.1, 0.2), ("clip", 1, 2), ("prompt_dropout", 0, 1), ("ema", 0.1, 0.9))
    )
    search += "    objective.beta: {log: [1, 2]}\n    objective.gamma: {log: [1, 2]}\n    train.t_min: {int: [0, 9]}\n"
    sweep = f"sweep:\n  maximise: eval/plane-radius/gain\n  search:\n{search}"
    space = read(tmp_path, sweep).space
    corners = list(corners_of(space, 40))
    assert len(corners) <= 40
    for param in space.every():
        assert {corner[param.name] for corner in corners} == {value for value, _ in param.bounds()}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("objective.beta: {log: [0, 5000]}", "a logarithmic range begins above 0, not at 0"),
        ("objective.beta: {logg: [1, 5]}", "`logg` is not a way to search"),
        ("objective.beta: {log: [1, 5], uniform: [1, 5]}", "has `uniform` and `log`"),
        ("objective.beta: {}", "and has none"),
        ("objective.beta: 7", "takes a map with one of"),
        ("objective.beta: {log: [5]}", "takes two numbers"),
        ("objective.beta: {log: [a, b]}", "takes two numbers"),
        ("objective.beta: {uniform: [5, 1]}", "must be below the highest"),
        ("objective.beta: {uniform: [1, 5], step: 2}", "`step` belongs to `int`"),
        ("train.batch: {int: [1.5, 5]}", "takes whole numbers"),
        ("train.batch: {int: [4, 64], step: 0}", "`step` takes a whole number above 0"),
        ("train.batch: {int: [5, 256], step: 10}", "is not reached from"),
        ("smoothing: {choice: []}", "takes a list of values"),
        ("smoothing: {choice: [hard, hard]}", "is listed twice"),
        ("smoothing: {choice: [{search: {epsilon: {uniform: [0, 1]}}}]}", "says what to `use`"),
        ("runtime.threads: {int: [1, 2]}", "may not change a result"),
        ("train.seed: {int: [1, 2]}", "is the same for all trials"),
        ("evaluate.steps: {int: [1, 2]}", "is the same for all trials"),
        # and by the spec itself, before trial 0:
        ("objective.beta: {uniform: [0, 5000]}", "should be greater than 0"),
        ("objective.betta: {log: [1, 5]}", "is not a setting of objective"),
        ("smoothing: {choice: [hrad]}", "no smoothing is called"),
        ("smoothing: {choice: [{use: label, search: {epsilon: {uniform: [0, 0.9]}}}]}", "at most 0.5"),
        ("train.warmup: {int: [0, 300]}", "longer than the run"),
        ("train.steps: {uniform: [1, 3]}", "steps"),
    ],
)
def test_mistakes_are_shown_where_they_are_written(tmp_path, entry, message):
    found, text = problems_of(tmp_path, f"sweep:\n  maximise: eval/plane-radius/gain\n  search:\n    {entry}\n")
    line = BASE.count("\n") + 4
    assert any(message in said and at == line for at, _, said, _ in found) or message in text, text
    assert all(at == line for at, *_ in found), text
    assert f"{line} | " in text


def test_a_search_inside_another_is_refused(tmp_path):
    found, _ = problems_of(
        tmp_path,
        SWEEP + "    smoothing.temperature: {uniform: [1, 2]}\n",
    )
    assert "is part of `smoothing`" in found[0][2]


@pytest.mark.parametrize(
    ("block", "message", "label"),
    [
        ("maximise: eval/plane-radios/gain", "no run of this spec reports", "did you mean"),
        ("maximise: eval/pickscore/gain", "no run of this spec reports", ""),
        ("trails: 3", "is not a setting of `sweep`", "did you mean `trials`?"),
        ("sampler: tpee", "no sampler is called", "did you mean `tpe`?"),
        ("sampler: grid", "a grid needs", ""),
        ("prune: median", "the pruner has nothing to look at", ""),
        ("{prune: wilcoxon, report: train/margin}", "needs `rungs`", ""),
        ("rungs: {at: [9]}", "there is no update 9 in a run of 4", ""),
        ("constraints: {eval/plane-on-axis/gain: {}}", "takes either `min` or `max`", ""),
        ("first: [{objective.beta: 7}]", "outside of what is searched", ""),
        ("first: [{objective.betta: 700}]", "is not searched", "did you mean"),
        ("minimise: eval/plane-radius/gain", "can't be an objective twice", ""),
    ],
)
def test_mistakes_of_the_block(tmp_path, block, message, label):
    lines = block.strip("{}").split(", ") if block.startswith("{") else [block]
    kept = SWEEP if not block.startswith("maximise") else SWEEP.replace("  maximise: eval/plane-radius/gain\n", "")
    sweep = kept.replace("sweep:\n", "sweep:\n" + "".join(f"  {line}\n" for line in lines))
    found, text = problems_of(tmp_path, sweep)
    assert any(message in said and label in (hint or "") for _, _, said, hint in found), text


def test_the_spec_itself_is_the_first_trial(tmp_path):
    file = write(tmp_path)
    values, remarks = first_values(read(tmp_path), resolved(file), lambda settings: resolved(file, settings))
    assert remarks == []
    assert values == [
        {
            "objective.beta": 500.0,
            "train.lr": 1e-4,
            "smoothing": "likelihood",
            "smoothing[likelihood].temperature": 1.0,
        }
    ]


def test_given_first_trials_rest_on_the_spec(tmp_path):
    sweep = SWEEP + "  first: [{objective.beta: 200, smoothing: label, smoothing.epsilon: 0.25}, {smoothing: label}]\n"
    file = write(tmp_path, sweep)
    values, _ = first_values(read(tmp_path, sweep), resolved(file), lambda settings: resolved(file, settings))
    assert values[0]["smoothing[label].epsilon"] == 0.25
    assert values[1] == {
        "objective.beta": 500.0,
        "train.lr": 1e-4,
        "smoothing": "label",
        "smoothing[label].epsilon": 0.1,
    }


def test_a_spec_outside_its_own_space_is_said(tmp_path):
    sweep = "sweep:\n  maximise: eval/plane-radius/gain\n  search:\n    objective.beta: {log: [1000, 5000]}\n"
    file = write(tmp_path, sweep)
    values, remarks = first_values(read(tmp_path, sweep), resolved(file), lambda settings: resolved(file, settings))
    assert values == []
    assert "objective.beta 500" in remarks[0]
