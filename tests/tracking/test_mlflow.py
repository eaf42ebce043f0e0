"""MLflow shows what the log says. Each test has its own copy of one empty store."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smpo.engine.monitoring.tracker import Ending, RunInfo, TrackerGroup
from smpo.errors import RunError
from smpo.runs.store import open_run
from smpo.tracking.jsonl import JsonlTracker, read_metrics
from smpo.tracking.mirror import read_place
from smpo.tracking.mlflow import mlflow_tracker, sync
from smpo.tracking.mlflow_thread import MirrorTracker

About = Callable[..., RunInfo]
DOWN = "http://127.0.0.1:9"


class Run:
    def __init__(self, runs: Path, info: RunInfo, uri: str | None = None, **settings: Any) -> None:
        self.said: list[str] = []
        tracker = mlflow_tracker(info.folder, runs, uri, say=self.said.append, every=0.05, **settings)
        assert tracker is not None
        self.mirror: MirrorTracker = tracker
        self.tee = TrackerGroup([JsonlTracker(info.folder), tracker], self.said.append)
        self.tee.start(info)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.tee.metrics({"train/loss": 1 / step, "odd|name": float("nan")}, step)


def _client(runs: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")


def _files(client: Any, run: str, folder: str | None = None) -> set[str]:
    found = set()
    for entry in client.list_artifacts(run, folder):
        found |= _files(client, run, entry.path) if entry.is_dir else {entry.path}
    return found


def test_a_run_arrives_whole(runs: Path, about: About, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smpo.tracking.mlflow.UPLOAD_LIMIT", 1000)
    params = {f"objective.p{i:03d}": i for i in range(150)} | {"long": "x" * 7000, "none": None}
    info = about(
        group_hash="1d90",
        attempt=1,
        params=params,
        commit="c0ffee",
        notes="a *note*",
        tags={"smpo.sweep": "s1"},
    )
    run = Run(runs, info, parent="p0")
    run.steps(1, 250)
    for step in (10, 20):
        run.tee.images("samples/p0", Image.new("RGB", (8, 8)), step)
    (info.folder / "resolved.yaml").write_text("name: toy\n")
    run.tee.artefact(info.folder / "resolved.yaml")
    run.tee.text("report/data.json", "{}")
    run.tee.params({"device": "cpu", "objective.p000": "changed"})
    run.tee.dataset("shapes", "d" * 64, {"pairs": 10, "ties": 2})
    for name, size in (("model", 10), ("large", 2000)):
        (info.folder / name).mkdir()
        (info.folder / name / "weights.bin").write_bytes(b"w" * size)
    run.tee.model(info.folder / "model", {"family": "toy"})
    run.tee.artefact(info.folder / "large", "checkpoints")
    run.tee.finish("done")

    assert run.said == []
    place = read_place(info.folder)
    client = _client(runs)
    found = client.get_run(place["run_id"])
    assert client.get_experiment(place["experiment_id"]).name == "toy"
    assert (found.info.status, found.info.run_name) == ("FINISHED", info.run_id)
    tags = found.data.tags
    assert (tags["smpo.spec"], tags["smpo.group"], tags["smpo.attempt"]) == ("7c41e09b52ad", "1d90", "1")
    assert (tags["smpo.commit"], tags["mlflow.source.git.commit"]) == ("c0ffee", "c0ffee")
    assert (tags["mlflow.note.content"], tags["smpo.sweep"]) == ("a *note*", "s1")
    assert (tags["mlflow.parentRunId"], tags["smpo.status"]) == ("p0", "done")
    assert len(found.data.params) == 153
    assert found.data.params["objective.p149"] == "149" and found.data.params["none"] == "null"
    assert found.data.params["device"] == "cpu" and found.data.params["objective.p000"] == "0"
    assert found.data.params["long"].endswith("(7000 characters in all)")

    history = client.get_metric_history(place["run_id"], "train/loss")
    written = read_metrics(info.folder)
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (point.step, point.values["train/loss"], point.milliseconds) for point in written
    ]
    assert len(client.get_metric_history(place["run_id"], "odd_name")) == 250

    files = _files(client, place["run_id"])
    assert {"resolved.yaml", "report/data.json", "model/weights.bin"} <= files
    pictures = [file for file in files if file.startswith("images/samples~p0+step+") and file.endswith(".png")]
    assert sorted(file.split("+")[2] for file in pictures) == ["10", "20"]
    assert "checkpoints/large.pointer.json" in files and "checkpoints/large/weights.bin" not in files
    copy = client.download_artifacts(place["run_id"], "checkpoints/large.pointer.json", str(tmp_path))
    pointer = json.loads(Path(copy).read_text())
    assert pointer["path"] == str(info.folder / "large") and pointer["bytes"] == 2000
    assert len(pointer["sha256"]["large/weights.bin"]) == 64

    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("shapes", "d" * 36)
    assert json.loads(given.dataset.profile) == {"pairs": 10, "ties": 2}
    (made,) = found.outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    assert model.tags["smpo.path"] == str(info.folder / "model") and model.params == {"family": "toy"}
    assert list(Path.cwd().iterdir()) == [], "nothing is left in the working directory"


@pytest.mark.parametrize(("ending", "status"), [("failed", "FAILED"), ("stopped", "KILLED"), ("pruned", "KILLED")])
def test_endings(runs: Path, about: About, ending: Ending, status: str) -> None:
    info = about()
    run = Run(runs, info)
    run.steps(1, 3)
    run.tee.finish(ending)
    found = _client(runs).get_run(read_place(info.folder)["run_id"])
    assert (found.info.status, found.data.tags["smpo.status"]) == (status, ending)


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(runs: Path, about: About) -> None:
    folder = open_run(runs, "toy", "7c41e09b52ad")
    first = Run(runs, about(folder.path))
    first.steps(1, 20)
    first.tee.finish("stopped")
    folder.close("stopped")
    place = read_place(folder.path)
    folder = open_run(runs, "toy", "7c41e09b52ad", resume=True)
    second = Run(runs, about(folder.path, resumed=folder.resumed, step=12))
    second.steps(13, 30)
    deadline = time.monotonic() + 10
    client = _client(runs)
    while client.get_run(place["run_id"]).info.status != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second.tee.finish("done")
    folder.close("done")
    assert read_place(folder.path)["run_id"] == place["run_id"]
    assert client.get_run(place["run_id"]).info.status == "FINISHED"
    history = client.get_metric_history(place["run_id"], "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(step, 1 / step) for step in range(1, 31)]
    assert len(client.search_runs([place["experiment_id"]])) == 1

    # Another copy of the same log, or a lost `tracking.json`, finds the same run and adds nothing.
    (folder.path / "tracking.json").unlink()
    assert sync(folder.path, runs)["run_id"] == place["run_id"]
    assert len(client.get_metric_history(place["run_id"], "train/loss")) == 30


def test_a_server_that_is_down_costs_no_time_and_no_data(
    runs: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = about()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DOWN)
    run = Run(runs, info)
    run.steps(1, 40)
    time.sleep(0.2)
    began = time.monotonic()
    run.tee.finish("done")
    assert time.monotonic() - began < 3.0
    assert len(run.said) == 1 and DOWN in run.said[0] and "smpo track sync" in run.said[0]
    assert [point.step for point in read_metrics(info.folder)] == list(range(1, 41))
    assert run.mirror.place() is None
    with pytest.raises(RunError, match=r"could not be sent .*refused"):
        sync(info.folder, runs)

    place = sync(info.folder, runs, f"sqlite:///{runs}/mlflow.db")
    client = _client(runs)
    assert [m.step for m in client.get_metric_history(place["run_id"], "train/loss")] == list(range(1, 41))
    assert client.get_run(place["run_id"]).info.status == "FINISHED"


def test_sync_closes_what_was_killed_and_leaves_alone_what_lives(runs: Path, about: About) -> None:
    folder = open_run(runs, "toy", "7c41e09b52ad")
    log = JsonlTracker(folder.path)
    log.start(about(folder.path))
    log.metrics({"loss": 1.0}, 1)
    with pytest.raises(RunError, match="is running"):
        sync(folder.path, runs)
    folder._lock.release()  # type: ignore[union-attr]  # as the system does when a process is killed
    client = _client(runs)
    found = client.get_run(sync(folder.path, runs)["run_id"])
    assert found.info.status == "KILLED" and found.data.metrics == {"loss": 1.0}
    open_run(runs, "toy", "7c41e09b52ad", resume=True).close("failed")
    sync(folder.path, runs)
    assert client.get_run(found.info.run_id).info.status == "FAILED", "when only the folder knows how it ended"
    with pytest.raises(RunError, match="no log"):
        sync(runs / "toy", runs)


def test_a_deleted_experiment_and_a_deleted_run_come_back(runs: Path, about: About) -> None:
    info = about()
    run = Run(runs, info)
    run.steps(1, 5)
    run.tee.finish("done")
    place = read_place(info.folder)
    client = _client(runs)
    client.delete_run(place["run_id"])
    client.delete_experiment(place["experiment_id"])
    again = sync(info.folder, runs)
    assert again["experiment_id"] == place["experiment_id"]
    assert len(client.get_metric_history(again["run_id"], "train/loss")) == 5
    assert client.get_run(again["run_id"]).info.lifecycle_stage == "active"


def test_tracking_can_be_turned_off(runs: Path) -> None:
    assert mlflow_tracker(runs / "toy" / "a-1", runs, "none") is None
    with pytest.raises(RunError, match="turned off"):
        sync(runs / "toy" / "a-1", runs, "none")


def test_an_experiment_may_be_named_by_the_environment(
    runs: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team/project")
    info = about()
    run = Run(runs, info)
    run.tee.finish("done")
    found = _client(runs).get_experiment(read_place(info.folder)["experiment_id"])
    assert found.name == "team/project"


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../../elsewhere", "..", "a/../../b", "~/x"])
def test_files_of_an_experiment_stay_in_the_store_whatever_its_name_is(runs: Path, about: About, name: str) -> None:
    """The name is that of a log, which another person may have written."""
    from smpo.tracking.mlflow import find_or_create_experiment, mlflow_client
    from smpo.tracking.store import find_store

    store = find_store(runs)
    assert store is not None and store.artefacts is not None
    client = mlflow_client(store, lambda text: None)
    experiment = client.get_experiment(find_or_create_experiment(client, store, name))
    assert experiment.name == name
    place = Path(experiment.artifact_location.removeprefix("file://"))
    assert place.resolve().parent == store.artefacts.resolve()


def test_a_sweep_and_its_trials_are_in_one_experiment(
    runs: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smpo.tracking.sweep_run import SweepRun

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team-x")
    parent = SweepRun(runs, None, name="small", study="small-1", say=lambda text: None)
    child = Run(runs, about())
    child.tee.finish("done")
    found = {experiment.name for experiment in _client(runs).search_experiments()}
    assert parent.id is not None and found == {"Default", "team-x"}
