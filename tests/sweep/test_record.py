"""Every way a trial can end, and what the study says of it."""

import json

import pytest

from smpo.app.sweep.outcome import record
from smpo.app.sweep.study import open_prepared
from smpo.app.sweep.workers.messages import TrialJob
from smpo.app.sweep.workers.process import Job
from smpo.app.sweep.workers.trial import _named
from smpo.engine.monitoring.alerts import NonFiniteLoss
from smpo.errors import MachineError, RunError
from smpo.sweep.trials import read_trial
from tests.sweep.words import SWEEP, small


def ended(folder, code, answer, *, block=SWEEP, times=1, overdue=None, asked=False):
    """Trials of one setting that end like this, one after the other as the study offers it again."""
    prepared = small(folder, block)
    study, _ = open_prepared(prepared, worker="here")
    for _ in range(times):
        trial, _ = study.take(50)
        order = TrialJob("spec", str(folder / "answer"), "hash")
        job = Job(order, folder / "order", folder / "trial-0.log", None, 4, 0, trial=trial)
        job.overdue, job.asked_to_stop = overdue, asked
        record(job, code, answer, study, prepared)
    found = [read_trial(one) for one in study.optuna.get_trials()]
    return found, study.counts()


@pytest.mark.parametrize(
    ("code", "answer", "state", "outcome", "reason"),
    [
        (1, {"state": "crashed", "message": "KeyError: x"}, "failed", "crashed", "KeyError: x (log: logs/trial-0.log)"),
        (1, {"state": "out of memory", "message": "CUDA"}, "failed", "out of memory", "CUDA"),
        (2, {"state": "refused", "message": "no such card"}, "failed", "refused", "no such card"),
        (1, {"state": "diverged", "message": "not finite"}, "pruned", "diverged", "not finite"),
        (0, {"state": "pruned", "message": "behind"}, "pruned", "pruned", "behind"),
        (-9, {"state": "running"}, "failed", "lost", "killed by SIGKILL (perhaps for its memory)"),
        (-11, {}, "failed", "lost", "killed by SIGSEGV"),
        (3, {}, "failed", "lost", "ended with status 3 and no word"),
        (130, {"state": "stopped", "message": "interrupted"}, "failed", "interrupted", "interrupted"),
    ],
)  # fmt: skip
def test_an_end_has_its_word_and_its_reason(tmp_path, code, answer, state, outcome, reason):
    found, counts = ended(tmp_path, code, answer)
    assert (found[0].state, found[0].outcome) == (state, outcome) and reason in found[0].reason
    again = outcome in ("lost", "interrupted")
    assert counts.waiting == again and counts.failed == (state == "failed" and not again)
    assert counts.finished == (state == "pruned")


def test_a_process_that_is_always_killed_is_given_up_after_two_retries(tmp_path):
    found, counts = ended(tmp_path, -9, {"state": "running"}, times=3)
    assert [one.outcome for one in found] == ["lost", "lost", "killed"]
    assert "3 times" in found[-1].reason and counts.waiting == 0 and counts.failed == 1
    assert len({json.dumps(one.params, sort_keys=True) for one in found}) == 1


def test_what_was_told_to_end_in_time_timed_out_and_isnt_tried_again(tmp_path):
    (found,), counts = ended(tmp_path, 130, {"state": "stopped"}, overdue=60.0)
    assert (found.outcome, found.reason[:22]) == (
        "timed out",
        "took longer than 60 s ",
    ) and counts.failed == 1


def test_with_several_objectives_divergence_is_a_failure_since_nothing_can_be_pruned(tmp_path):
    block = SWEEP.replace("\n  search:", "\n  minimise: seconds/train\n  search:", 1)
    (found,), _ = ended(tmp_path, 1, {"state": "diverged", "message": "not finite"}, block=block)
    assert (found.state, found.outcome) == ("failed", "diverged")


@pytest.mark.parametrize(
    ("metrics", "outcome", "reason"),
    [
        ({"eval/plane-radius/win_rate": 0.5}, "crashed", "did not report `eval/plane-radius/gain`"),
        ({"eval/plane-radius/gain": "NaN"}, "diverged", "not a finite number"),
    ],
)
def test_a_run_without_its_objective_is_no_result(tmp_path, metrics, outcome, reason):
    folder = tmp_path / "runs" / "small" / "abc-1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "time": 0.0, **metrics}) + "\n")
    (found,), _ = ended(tmp_path, 0, {"state": "done", "folder": str(folder)})
    assert (found.state, found.outcome) == ("failed", outcome) and reason in found.reason


def test_what_a_trial_dies_of_is_named():
    class OutOfMemoryError(RuntimeError):
        """As torch calls it."""

    assert _named(MemoryError()) == ("out of memory", "MemoryError")
    assert _named(OutOfMemoryError("CUDA out of memory\nand more")) == ("out of memory", "CUDA out of memory")
    assert _named(NonFiniteLoss(3, "the loss of 2 pairs is not finite", []))[0] == "diverged"
    assert _named(MachineError("no GPU")) == ("refused", "no GPU")
    assert _named(RunError("the data is gone")) == ("crashed", "the data is gone")
    assert _named(KeyError("x")) == ("crashed", "KeyError: 'x'")
