"""MLflow as a mirror of the run folder. The only file that imports MLflow, and only once a run reports to it.

Everything here runs in the thread of a `MirrorTracker` or in `sync`, never in training: importing MLflow
takes seconds, and so does the first opening of a database. Runs are addressed by id through `MlflowClient`,
because MLflow's "active run" belongs to a thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.errors import RunError
from smpo.runs.store import RunFolder
from smpo.tracking.jsonl import Point
from smpo.tracking.mirror import Mirror, Refused, read_place
from smpo.tracking.mlflow_names import LONGEST_PARAM, batches, cut, hashes, key, run_tags, size, words
from smpo.tracking.mlflow_thread import MirrorTracker
from smpo.tracking.store import MLFLOW_ENVIRONMENT, Store, create_database, find_store

__all__ = ["STATUS", "MlflowRun", "find_or_create_experiment", "mlflow_client", "mlflow_tracker", "sync"]

UPLOAD_LIMIT = 50 * 2**20
"""Artefacts above this many bytes stay where they are: their path and hash are recorded instead."""
STATUS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "pruned": "KILLED"}
_METRICS_AT_ONCE = 1000


def mlflow_tracker(
    folder: Path,
    runs: Path,
    uri: str | None = None,
    *,
    parent: str | None = None,
    say: Callable[[str], None] | None = None,
    **pace: float,
) -> MirrorTracker | None:
    """A tracker that mirrors `folder` in MLflow, or None when tracking is turned off (`none`).

    `parent` is the MLflow run of a sweep, for its trials; `pace` are settings of `MirrorTracker`. Raises `RunError`
    for an address that can't work.
    """
    store = find_store(runs, uri)
    if store is None:
        return None
    return MirrorTracker(folder, MlflowRun(store, folder, parent=parent, say=say), say=say, **pace)


def sync(
    folder: Path, runs: Path, uri: str | None = None, *, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Send what MLflow has missed of a run that isn't running.

    Returns its place: `uri`, `experiment_id`, `run_id`. Safe to repeat: what is there already isn't sent again.
    A run that was killed is closed with its folder's status, or as KILLED. Raises `RunError` when the
    run is live (its tracker does this), has no log, or the store fails.
    """
    store = find_store(runs, uri)
    if store is None:
        raise RunError("tracking is turned off", help="name a store with `--uri`")
    run = RunFolder(folder)
    if run.is_live():
        raise RunError(f"{folder} is running, and reports by itself")
    destination = MlflowRun(store, folder, say=say)
    mirror = Mirror(folder, destination)
    try:
        mirror.advance()
        if mirror.opened and not mirror.ended:
            status = run.status()
            ending = status.state if status.state in STATUS else "stopped"
            destination.event({"event": "finish", "status": ending, "time": status.updated or time.time()})
    except Exception as error:
        with contextlib.suppress(Exception):
            mirror.conclude()
        raise RunError(f"{folder} could not be sent to {store.shown}: {error}") from error
    if not mirror.opened:
        raise RunError(f"{folder} has no log to send", help="a run writes `events.jsonl` when it starts")
    if mirror.refusals and say is not None:
        say(f"{store.shown} refused {len(mirror.refusals)} records; the first: {mirror.refusals[0]}")
    return read_place(folder)


class MlflowRun:
    """One run in one store, as the destination of a mirror."""

    def __init__(
        self, store: Store, folder: Path, *, parent: str | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.shown = store.shown
        self._store = store
        self._folder = folder
        self._parent = parent
        self._say = say or (lambda text: None)
        self._client: Any = None
        self._experiment = ""
        self._model = ""
        self._run = ""
        self._params: set[str] = set()

    def open(self, start: Mapping[str, Any]) -> dict[str, Any]:
        if self._client is None:
            self._client = mlflow_client(self._store, self._say)
        self._experiment = find_or_create_experiment(self._client, self._store, str(start["name"]))
        # Not the name of its folder: MLflow would look for the files of one in the other.
        self._model = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{start['name']}-{start['run_id']}")
        self._run = self._find_run(start) or self._create_run(start)
        self._params = set(self._client.get_run(self._run).data.params)
        return {"uri": self.shown, "experiment_id": self._experiment, "run_id": self._run}

    def history(self, name: str) -> Iterable[tuple[int, int]]:
        return [(m.step, m.timestamp) for m in self._client.get_metric_history(self._run, key(name))]

    def points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        # Each value keeps the time at which it was reported, so that sending it twice stores it once.
        values = [
            Metric(key(name), value, point.milliseconds, point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for part in batches(values, _METRICS_AT_ONCE):
            self._call("log_batch", self._run, metrics=part)

    def event(self, event: Mapping[str, Any]) -> None:
        what = event.get("event")
        if what == "start":
            self._call("update_run", self._run, status="RUNNING")
            self._tag(run_tags(event))
            self._log_params(event.get("params", {}))
        elif what == "params":
            self._log_params(event["values"])
        elif what == "image":
            self._log_image(event)
        elif what == "artefact":
            self._log_artefact(self._inside(event["file"]), event["folder"])
        elif what == "dataset":
            self._log_dataset(event)
        elif what == "model":
            self._log_model(event)
        elif what == "finish":
            self._tag({"smpo.status": event["status"]})
            self._call("set_terminated", self._run, STATUS[event["status"]], round(event["time"] * 1000))

    def _find_run(self, start: Mapping[str, Any]) -> str | None:
        """By the id in the folder, else by the log's own: a crash can come before the id is noted."""
        from mlflow.exceptions import MlflowException

        place = read_place(self._folder)
        if place.get("uri") == self.shown and place.get("run_id"):
            try:
                run = self._client.get_run(place["run_id"])
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                if run.info.lifecycle_stage == "active":
                    self._experiment = run.info.experiment_id
                    return str(run.info.run_id)
        found = self._client.search_runs([self._experiment], f"tags.`smpo.log` = '{start['uid']}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create_run(self, start: Mapping[str, Any]) -> str:
        tags = {**run_tags(start), "smpo.log": start["uid"]}
        if self._parent:
            tags["mlflow.parentRunId"] = self._parent
        began = round(start["time"] * 1000)
        run = self._client.create_run(self._experiment, began, tags, tags["mlflow.runName"])
        return str(run.info.run_id)

    def _tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for part in batches([RunTag(*tag) for tag in tags.items()]):
            self._call("log_batch", self._run, tags=part)

    def _log_params(self, values: Mapping[str, Any]) -> None:
        """Parameters can't change in MLflow: those of the first start stay."""
        from mlflow.entities import Param

        fresh = {key(name): value for name, value in values.items() if key(name) not in self._params}
        params = [Param(name, cut(words(value), LONGEST_PARAM)) for name, value in fresh.items()]
        for part in batches(params):
            self._call("log_batch", self._run, params=part)
        self._params.update(fresh)

    def _log_image(self, event: Mapping[str, Any]) -> None:
        from PIL import Image

        path = self._inside(event["file"])
        try:
            picture = Image.open(path)
        except OSError as error:
            raise Refused(f"{path} can't be read any more") from error
        with picture:
            when = {"step": event["step"], "timestamp": round(event["time"] * 1000)}
            self._call("log_image", self._run, picture, key=event["name"], synchronous=True, **when)

    def _log_artefact(self, path: Path, folder: str) -> None:
        if not path.exists():
            raise Refused(f"{path} isn't there any more")
        if size(path) > UPLOAD_LIMIT:
            pointer = {"path": str(path.absolute()), "bytes": size(path), "sha256": hashes(path)}
            name = f"{folder}/{path.name}.pointer.json".lstrip("/")
            self._call("log_text", self._run, json.dumps(pointer, indent=1), name)
        elif path.is_dir():
            self._call("log_artifacts", self._run, str(path), f"{folder}/{path.name}".lstrip("/"))
        else:
            self._call("log_artifact", self._run, str(path), folder or None)

    def _inside(self, file: str) -> Path:
        """A file or folder of the run. Raises `Refused` for anything else: a log is untrusted text, and neither a path
        nor a link in it may lead out of the folder."""
        home, path = self._folder.resolve(), self._folder / file
        parts = [path, *path.rglob("*")] if path.is_dir() else [path]
        if not all(part.resolve().is_relative_to(home) for part in parts):
            raise Refused(f"{file} lies outside of the run's folder, or leads there")
        return path

    def _log_dataset(self, event: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = json.dumps(event["facts"], default=str)
        dataset = Dataset(
            name=event["name"][:500],
            digest=event["digest"][:36],
            source_type="code",
            source=json.dumps({"tags": {"digest": event["digest"], "log": str(self._folder.absolute())}}),
            profile=facts,
        )
        tags = [InputTag("mlflow.data.context", "training")]
        self._call("log_inputs", self._run, [DatasetInput(dataset, tags)])

    def _log_model(self, event: Mapping[str, Any]) -> None:
        """An external model that points at the folder, so that MLflow lists it without its weights; small ones are
        uploaded as well."""
        from mlflow.entities import LoggedModelOutput

        folder = self._inside(event["file"])
        self._log_artefact(folder, "")
        facts = {key(name): cut(words(value), LONGEST_PARAM) for name, value in event["facts"].items()}
        model = self._call(
            "create_logged_model",
            self._experiment,
            name=self._model,
            source_run_id=self._run,
            tags={"mlflow.model.isExternal": "true", "smpo.path": str(folder.absolute())},
            params=facts,
            model_type="diffusion",
        )
        self._call("finalize_logged_model", model.model_id, "READY")
        self._call("log_outputs", self._run, [LoggedModelOutput(model.model_id, step=0)])

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Raises `Refused` where trying again can't help."""
        from mlflow.exceptions import MlflowException

        try:
            return getattr(self._client, method)(*arguments, **named)
        except MlflowException as error:
            if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise Refused(error.message.splitlines()[0]) from error
            raise


def find_or_create_experiment(client: Any, store: Store, name: str) -> str:
    """The id of the experiment `name`, or of MLFLOW_EXPERIMENT_NAME where that is set; a deleted one is restored. Its
    files get a folder in the store's own, whatever the name is: a name can come from another person's log."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    folder = re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip(".") or "-"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        where = None if store.artefacts is None else (store.artefacts / folder).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=where))
        except MlflowException:  # another process was first
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def mlflow_client(store: Store, say: Callable[[str], None]) -> Any:
    """A client of the store; creates the database of a local one. Slow: seconds for the import alone."""
    store.knock()
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    if store.database is not None:
        create_database(
            store.database, lambda uri: mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1), say=say
        )
    return mlflow.MlflowClient(tracking_uri=store.uri)
