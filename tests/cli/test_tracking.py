"""A run's record in MLflow, as it is after failures, interruptions and without a server."""

import json
import signal
import sqlite3

import pytest

from tests.cli.words import SMALL_PLANE, smpo


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE.replace(", tracking: none", ""))
    return path


def rows(folder, query):
    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        return database.execute(query).fetchall()


def test_interrupted_resumed_and_failed_runs_in_mlflow(spec, capfd, monkeypatch):
    from smpo.tracking.console import Console

    def step(self, report, total):
        if report.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Console, "step", step)
        assert smpo(capfd, "run", spec, "-q").code == 130
    assert rows(spec.parent, "select status from runs") == [("KILLED",)]

    assert smpo(capfd, "run", spec, "-q", "--resume").code == 0
    assert rows(spec.parent, "select status from runs") == [("FINISHED",)], "the same run went on"
    steps = rows(spec.parent, "select step from metrics where key = 'train/loss' order by step")
    assert steps == [(1,), (2,), (3,), (4,)], "no fork, no gap"
    params = dict(rows(spec.parent, "select key, value from params"))
    assert params["objective.beta"] in ("500", "500.0") and params["inversion.use"] == "renoise"
    tags = dict(rows(spec.parent, "select key, value from tags"))
    assert tags["smpo.objective"] == "smpo" and len(tags["smpo.spec"]) == 12
    assert list(spec.parent.glob("runs/artifacts/small/*/artifacts/resolved.yaml"))
    assert list(spec.parent.glob("runs/artifacts/small/*/artifacts/lock.json"))
    assert list(spec.parent.glob("runs/artifacts/small/*/artifacts/images/before_after*.png"))
    assert rows(spec.parent, "select count(*) from metrics where key = 'eval/plane-radius/win_rate'") == [(1,)]

    from smpo.components.objectives import SmPO

    monkeypatch.setattr(SmPO, "__call__", lambda self, predicted, p: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug of ours keeps its traceback
        smpo(capfd, "run", spec, "-q", "--set", "train.seed=7")
    assert sorted(rows(spec.parent, "select status from runs")) == [("FAILED",), ("FINISHED",)]


def test_a_server_that_is_away_costs_a_sentence(spec, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said = smpo(capfd, "run", spec)
    assert said.code == 0, said.err
    assert said.err.count("127.0.0.1:9") == 1, said.err
    (run,) = spec.parent.glob("runs/small/*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
