"""Before anything imports torch: one thread a process, no hub, no telemetry."""

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "1")
# A shell that starts the tests in its background, or nohup, lets them and their children ignore what tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
pytest_plugins = ["pytester", "tests.faults"]


@pytest.fixture(autouse=True, scope="session")
def _no_code_is_trusted(tmp_path_factory):
    """The user's own list of trusted code stays out, and nothing of the tests gets into it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ.pop("SMPO_TRUSTED_CODE", None)


@pytest.fixture(autouse=True)
def _signals_are_left_as_found():
    """A handler that a test leaves behind is inherited by the processes of later tests, which then ignore SIGTERM."""
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in watched}
    yield
    after = {number: signal.getsignal(number) for number in watched}
    left = [number for number in watched if after[number] is not before[number]]
    for number in left:
        signal.signal(number, before[number])
    assert not left, f"signal handlers were left behind: {[(number.name, after[number]) for number in left]}"
