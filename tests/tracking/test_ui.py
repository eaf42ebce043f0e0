"""`smpo ui`, with a stand-in for MLflow's slow server."""

import os
import signal
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from smpo.errors import MachineError, RunError
from smpo.tracking.ui import Ui, run_ui, ui_command

STAND_IN = """
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stand_in(code: str, port: int) -> Ui:
    return Ui((sys.executable, "-c", code, str(port)), dict(os.environ), f"http://127.0.0.1:{port}")


def test_command_and_environment(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", raising=False)
    ui = ui_command(tmp_path, port=port)
    assert ui.command[:4] == (sys.executable, "-m", "mlflow", "server")
    options = dict(zip(ui.command[4::2], ui.command[5::2], strict=True))
    assert options == {
        "--backend-store-uri": f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination": str(tmp_path / "artifacts"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    assert ui.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert ui.environment["PATH"] == os.environ["PATH"] and ui.url == f"http://127.0.0.1:{port}"


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing has been tracked here yet"):
        ui_command(tmp_path)
    with pytest.raises(RunError, match="is a server") as caught:
        ui_command(tmp_path, "http://me:pw@server:5000")
    assert caught.value.help == "open http://server:5000"
    with pytest.raises(RunError, match="turned off"):
        ui_command(tmp_path, "none")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(MachineError, match=f"port {port} .* is taken") as caught:
            ui_command(tmp_path, port=port)
    assert "smpo ui --port" in str(caught.value.help)


def test_the_link_is_said_once_it_works_and_an_interrupt_ends_the_server(port: int) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "http" in text:
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    assert run_ui(_stand_in(STAND_IN, port), say) == 0
    assert len(said) == 2 and f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning " in said[1]
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health")


def test_a_server_that_dies_says_why(port: int) -> None:
    with pytest.raises(MachineError, match="ended before it answered: no such table"):
        run_ui(_stand_in("import sys; sys.exit('no such table')", port), lambda text: None)


def test_a_server_that_never_answers_is_given_up(port: int) -> None:
    with pytest.raises(MachineError, match="did not answer"):
        run_ui(_stand_in("import time; time.sleep(60)", port), lambda text: None, patience=0.5)
