"""What a pruner is told of a trial on its way, and what the trial is told in return."""

import json

import pytest

from smpo.app.sweep.pruning import follow
from smpo.app.sweep.study import open_prepared
from smpo.app.sweep.workers.messages import TrialJob, read_json, rung_file, verdict_file, write_json
from smpo.app.sweep.workers.process import Job
from smpo.spec.problems import SpecProblems
from smpo.tracking.jsonl import METRICS, Tail
from tests.sweep.words import SWEEP, small

HELD = ("train.holdout=20",)
BY_HELD_OUT = "  rungs: {at: [2], prompts: 0, by: holdout/accuracy}\n"


def watched(folder, block, sets=HELD):
    """A job of a trial, and its folder."""
    prepared = small(folder, block, sets=sets)
    study, _ = open_prepared(prepared, worker="here")
    place = folder / "run"
    place.mkdir()
    order = TrialJob("spec", str(folder / "answer"), "hash", rungs=[2] if "rungs" in block else [])
    job = Job(order, folder / "order", folder / "log", None, 4, 0, tail=Tail(place / METRICS))
    job.trial, _ = study.take(50)
    return job, prepared.sweep, place


def arrive(place, figures, scores=()):
    write_json(rung_file(place, 2), {"step": 2, "figures": figures, "scores": dict(scores)})


@pytest.mark.parametrize(("aim", "told"), [("maximise", 0.7), ("minimise", -0.7)])
def test_more_accuracy_is_good_whatever_the_objective_wants(tmp_path, aim, told):
    block = SWEEP.replace("maximise", aim) + BY_HELD_OUT + "  prune: median\n"
    job, sweep, place = watched(tmp_path, block)
    arrive(place, {"holdout/accuracy": 0.7, "rung/plane-radius/gain": 0.1})
    follow(job, sweep)
    (reported,) = job.trial.study.get_trials()
    assert reported.intermediate_values == {2: told}
    assert job.reports == {2: 0.7}, "a person reads it as it is"
    assert read_json(verdict_file(place, 2))["go"] is True


def test_a_paired_pruner_compares_held_out_pairs_one_by_one(tmp_path):
    job, sweep, place = watched(tmp_path, SWEEP + BY_HELD_OUT + "  prune: wilcoxon\n")
    arrive(place, {"holdout/accuracy": 0.5}, {"holdout": [0.1, -0.2, 0.3], "plane-radius": [9.0] * 3})
    follow(job, sweep)
    (reported,) = job.trial.study.get_trials()
    assert reported.intermediate_values == {0: 0.1, 1: -0.2, 2: 0.3}


@pytest.mark.parametrize(("metric", "told"), [("train/loss", -0.6), ("train/implicit_accuracy", 0.6)])
def test_a_loss_is_good_when_small(tmp_path, metric, told):
    job, sweep, place = watched(tmp_path, SWEEP + f"  report: {metric}\n  prune: median\n")
    (place / METRICS).write_text(json.dumps({"step": 1, "time": 0.0, metric: 0.6}) + "\n")
    follow(job, sweep)
    (reported,) = job.trial.study.get_trials()
    assert reported.intermediate_values == {1: told}


@pytest.mark.parametrize(
    ("block", "sets", "said"),
    [
        ("  rungs: {at: [2]}\n  report: train/loss\n  prune: median\n", (), "not at both"),
        ("  report: train/margni\n  prune: median\n", (), "can't compare trials by `train/margni`"),
        (BY_HELD_OUT + "  prune: median\n", (), "no pairs are held out"),
        (
            "  rungs: {at: [2], by: train/loss}\n  prune: median\n",
            HELD,
            "can't compare trials by `train/loss`",
        ),
        ("  rungs: {at: [2], prompts: 0}\n  prune: median\n", HELD, "without prompts a rung sees nothing"),
    ],
)
def test_what_a_pruner_could_not_see_is_refused(tmp_path, block, sets, said):
    with pytest.raises(SpecProblems) as caught:
        small(tmp_path, SWEEP + block, sets=sets)
    (problem,) = caught.value.problems
    assert said in problem.message and problem.span is not None


def test_rungs_that_nobody_looks_at_are_remarked(tmp_path):
    assert "nothing is pruned" in " ".join(small(tmp_path, SWEEP + "  rungs: {at: [2]}\n").remarks)
    assert not small(tmp_path, SWEEP + "  rungs: {at: [2]}\n  prune: median\n").remarks


def test_held_out_accuracy_may_be_the_objective(tmp_path):
    block = SWEEP.replace("eval/plane-radius/gain", "holdout/accuracy")
    assert small(tmp_path, block, sets=HELD).sweep.goals[0].metric == "holdout/accuracy"
    with pytest.raises(SpecProblems, match="no run of this spec reports"):
        small(tmp_path, block)
