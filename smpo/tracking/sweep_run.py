"""The MLflow run of a whole sweep: trials are its children, and its curves are the sweep's history.

An error of MLflow never stops a sweep: it is reported once, and the study has the results anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from smpo.engine.monitoring.tracker import Ending
from smpo.tracking.mlflow import STATUS, find_or_create_experiment, mlflow_client
from smpo.tracking.mlflow_names import LONGEST_PARAM, batches, cut, key, words
from smpo.tracking.store import Store, find_store

__all__ = ["SweepRun"]


class SweepRun:
    """The parent of a study's trials (or of its confirmation, another `role`): found by its tags, or created."""

    def __init__(
        self,
        runs: Path,
        uri: str | None,
        *,
        name: str,
        study: str,
        role: str = "sweep",
        run: str | None = None,
        params: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._say = say or (lambda text: None)
        self._warned = False
        self._client: Any = None
        self.id: str | None = run
        store = find_store(runs, uri)
        if store is not None:
            self._attempt(lambda: self._open(store, name, study, role, params or {}), opening=True)

    def _open(self, store: Store, name: str, study: str, role: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client = client = mlflow_client(store, self._say)
        if self.id is not None:
            return
        experiment = find_or_create_experiment(client, store, name)
        tags = {"smpo.study": study, "smpo.role": role}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        if earlier := client.search_runs([experiment], query, max_results=1):
            self.id = str(earlier[0].info.run_id)
            return
        title = study if role == "sweep" else f"{study} {role}"
        self.id = str(client.create_run(experiment, tags=tags, run_name=title).info.run_id)
        for part in batches([Param(key(one), cut(words(value), LONGEST_PARAM)) for one, value in params.items()]):
            client.log_batch(self.id, params=part)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)

        def send() -> None:
            from mlflow.entities import Metric

            metrics = [Metric(key(name), float(value), now, step) for name, value in values.items()]
            self._client.log_batch(self.id, metrics=metrics)

        self._attempt(send)

    def artefacts(self, files: Sequence[Path]) -> None:
        for file in files:
            self._attempt(lambda file=file: self._client.log_artifact(self.id, str(file)))  # type: ignore[misc]

    def tag(self, name: str, value: str) -> None:
        self._attempt(lambda: self._client.set_tag(self.id, name, value))

    def status(self, ending: Ending | None) -> None:
        """How the sweep stands; None while it runs."""
        if ending is None:
            self._attempt(lambda: self._client.update_run(self.id, status="RUNNING"))
        else:
            self._attempt(lambda: self._client.set_terminated(self.id, STATUS[ending]))

    def _attempt(self, act: Callable[[], Any], *, opening: bool = False) -> None:
        if self._client is None and not opening:
            return
        try:
            act()
        except Exception as error:
            if not self._warned:
                self._warned = True
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self._say(f"MLflow did not take the sweep's own run ({reason}); the study itself is complete")
