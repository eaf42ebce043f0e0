"""Trials that are forked: their exit codes, their output, and what a kill does."""

import os
import signal
import sys
import time

import pytest

from smpo.app.sweep.workers.forkserver import ForkServer
from smpo.app.sweep.workers.messages import TrialJob, read_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux alone")


@pytest.fixture
def server():
    server = ForkServer(preload="json")  # the whole preload takes seconds, and is the slow tests' business
    yield server
    server.close(5)


def order_of(folder, spec):
    order = TrialJob(spec=str(spec), answer=str(folder / "answer.json"), spec_hash="0")
    file = folder / "order.json"
    file.write_text(order.to_json())
    return file


def code_of(child, seconds=60):
    until = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    return child.poll()


def test_a_trial_that_fails_leaves_its_exit_code_and_its_words(server, tmp_path):
    child = server(order_of(tmp_path, tmp_path / "missing.yaml"), tmp_path / "log", {"OMP_NUM_THREADS": "1"})
    assert code_of(child) == 2
    assert read_json(tmp_path / "answer.json")["state"] == "refused"
    assert "missing.yaml" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("way", ["terminate", "kill"])
def test_a_trial_that_is_ended_has_the_code_of_its_signal(server, tmp_path, way):
    os.mkfifo(tmp_path / "order.json")  # the trial waits for its order
    child = server(tmp_path / "order.json", tmp_path / "log", {})
    time.sleep(0.5)
    assert child.poll() is None
    getattr(child, way)()
    assert code_of(child) == -{"terminate": signal.SIGTERM, "kill": signal.SIGKILL}[way]


def test_a_killed_server_is_replaced_at_the_next_start(server, tmp_path):
    from multiprocessing import forkserver

    os.mkfifo(tmp_path / "waits.json")
    child = server(tmp_path / "waits.json", tmp_path / "log", {})
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    child.kill()
    assert code_of(child) == -signal.SIGKILL
    following = server(order_of(tmp_path, tmp_path / "missing.yaml"), tmp_path / "log", {})
    assert code_of(following) == 2
