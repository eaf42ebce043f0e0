"""Which store a run reports to."""

from pathlib import Path

import pytest

from smpo.errors import RunError
from smpo.tracking.store import Store, find_store


def test_default_is_a_database_beside_the_runs_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = find_store(Path("runs"))
    assert store == Store(
        f"sqlite:///{tmp_path}/runs/mlflow.db",
        tmp_path / "runs" / "mlflow.db",
        tmp_path / "runs" / "artifacts",
    )


def test_explicit_wins_over_environment_wins_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert find_store(Path("runs")) == Store("http://server:5000")
    explicit = find_store(Path("runs"), "https://me:pw@other/mlflow")
    assert explicit is not None and explicit.is_server
    assert explicit.uri == "https://me:pw@other/mlflow" and explicit.shown == "https://other/mlflow"
    assert find_store(Path("runs"), "none") is None


def test_relative_databases_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = find_store(Path("runs"), "sqlite:///track/m.db")
    assert store is not None
    assert store.uri == f"sqlite:///{tmp_path}/track/m.db"
    assert store.artefacts == tmp_path / "track" / "artifacts"


def test_other_databases_keep_files_beside_the_runs() -> None:
    store = find_store(Path("/data/runs"), "postgresql://me:pw@db/mlflow")
    assert store is not None and not store.is_server and store.database is None
    assert store.artefacts == Path("/data/runs/artifacts") and store.shown == "postgresql://db/mlflow"
    assert find_store(Path("runs"), "databricks") == Store("databricks")


@pytest.mark.parametrize("uri", ["mlruns", "file:///data/mlruns"])
def test_folders_are_refused_with_a_way_out(uri: str) -> None:
    with pytest.raises(RunError) as caught:
        find_store(Path("runs"), uri)
    assert "mlruns/mlflow.db`" in str(caught.value.help)


def test_knocking_is_honest_and_leaves_proxies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError):
        Store("http://127.0.0.1:9").knock()
    Store("sqlite:///x.db").knock()
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    Store("http://127.0.0.1:9").knock()
