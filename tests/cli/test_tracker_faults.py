"""Trackers that are away, slow, broken or busy, from the command line: training doesn't wait, and nothing is lost."""

import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smpo.tracking.mlflow_thread import MirrorTracker
from tests.cli.words import SMALL_PLANE, smpo
from tests.tracking.conftest import store_template  # noqa: F401

FEW = ("--set", "evaluate=null", "--set", "train.steps=12")
STEPS = list(range(1, 13))


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # ten seconds, unless told
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    path = tmp_path / "small.yaml"
    path.write_text(SMALL_PLANE.replace(", tracking: none", ""))
    return path


class Server:
    """A loopback server that isn't MLflow: it answers whatever `answer` does."""

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.calls += 1
                answer(self)

            do_POST = do_PATCH = do_GET

            def log_message(self, *_):
                pass

        server = self
        self.calls = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()


def sleeps(handler):
    time.sleep(5)


def says_500(handler):
    body = b'{"error_code": "INTERNAL_ERROR", "message": "the database is gone"}'
    handler.send_response(500)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def says_html(handler):
    body = b"<html>please log in</html>"
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def hangs_up(handler):
    handler.connection.close()


def logged(folder):
    (run,) = folder.glob("runs/small/*-1")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return run, [line["step"] for line in lines if "train/loss" in line]


def stored(folder):
    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        curve = database.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
        return [step for (step,) in curve], database.execute("select status from runs").fetchall()


def waited(run):
    """Seconds between the first and the last update."""
    times = [json.loads(line)["time"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return times[-1] - times[0]


@pytest.mark.fault(
    "faults", "a tracking server that is slow, in error, hangs up or is something else",
    "training doesn't wait; one warning names the command that sends the missing points later",
)  # fmt: skip
@pytest.mark.parametrize("answer", [sleeps, says_500, says_html, hangs_up], ids=lambda f: f.__name__)
def test_a_server_in_trouble_costs_a_sentence(spec, capfd, store_template, answer):  # noqa: F811
    with Server(answer) as server:
        began = time.monotonic()
        said = smpo(capfd, "run", spec, *FEW, "--set", f"runtime.tracking={server.uri}")
        took = time.monotonic() - began
    assert said.code == 0, said.err
    assert server.calls and said.err.count("smpo track sync") == 1 and server.uri in said.err
    run, steps = logged(spec.parent)
    assert steps == STEPS and took < 30
    assert waited(run) < 5, "no update waits for the server"
    (spec.parent / "runs" / "mlflow.db").write_bytes(store_template.read_bytes())
    assert smpo(capfd, "track", "sync", run, "--uri", f"sqlite:///{spec.parent}/runs/mlflow.db").code == 0
    assert stored(spec.parent) == (STEPS, [("FINISHED",)])


@pytest.mark.fault(
    "faults", "a tracking database that another process holds",
    "training doesn't wait; missing points are sent when the lock is gone",
)  # fmt: skip
@pytest.mark.parametrize("later", ["still running", "by command", "on resume"])
def test_a_locked_database_gets_everything_later(spec, capfd, monkeypatch, store_template, later):  # noqa: F811
    (spec.parent / "runs").mkdir()
    file = spec.parent / "runs" / "mlflow.db"
    file.write_bytes(store_template.read_bytes())
    monkeypatch.setattr(MirrorTracker.__init__, "__kwdefaults__", {
        **MirrorTracker.__init__.__kwdefaults__, "every": 0.5, "grace": 3.0 if later != "still running" else 60.0,
    })  # fmt: skip
    writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    if later == "still running":
        threading.Timer(8.0, writer.execute, ["ROLLBACK"]).start()
    from smpo.tracking.console import Console

    with monkeypatch.context() as patch:
        if later == "on resume":
            patch.setattr(Console, "step", lambda self, report, total: _stop_at(report.step, 6))
        said = smpo(capfd, "run", spec, *FEW)
    run, reported = logged(spec.parent)
    assert said.code == (130 if later == "on resume" else 0), said.err
    assert waited(run) < 5
    if later == "by command":
        writer.execute("ROLLBACK")
        assert "smpo track sync" in said.err and reported == STEPS
        assert smpo(capfd, "track", "sync", run).code == 0
    if later == "on resume":
        writer.execute("ROLLBACK")
        assert reported == STEPS[:6]
        assert smpo(capfd, "run", spec, *FEW, "--resume", "-q").code == 0
    assert stored(spec.parent) == (STEPS, [("FINISHED",)])
    writer.close()


def _stop_at(step, last):
    import signal

    if step == last:
        signal.raise_signal(signal.SIGINT)
