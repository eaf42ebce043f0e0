"""A tracking store costs seven seconds to create, so it is created once and copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smpo.engine.monitoring.tracker import RunInfo


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from smpo.tracking.mlflow import mlflow_client
    from smpo.tracking.store import find_store

    runs = tmp_path_factory.mktemp("template")
    store = find_store(runs, f"sqlite:///{runs}/mlflow.db")
    assert store is not None and store.database is not None
    said: list[str] = []
    mlflow_client(store, said.append)
    assert len(said) == 1 and "once" in said[0]
    assert not store.database.with_name("mlflow.db.new").exists()
    return store.database


@pytest.fixture
def runs(tmp_path: Path, store_template: Path) -> Path:
    """A folder for runs, with an empty tracking store in it."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(store_template, folder / "mlflow.db")
    return folder


@pytest.fixture
def about(tmp_path: Path) -> Callable[..., RunInfo]:
    def make(folder: Path | None = None, **facts: object) -> RunInfo:
        folder = folder or tmp_path / "runs" / "toy" / "7c41e09b52ad-1"
        given: dict[str, object] = {"name": "toy", "run_id": folder.name, "folder": folder}
        return RunInfo(**{**given, "spec_hash": "7c41e09b52ad", **facts})  # type: ignore[arg-type]

    return make
