"""A process that dies ends the run with its name, a checkpoint of the last whole update, and no waiting."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

from smpo.app.distributed import launcher
from smpo.app.distributed.environment import RankInfo
from smpo.app.distributed.launcher import launch
from smpo.app.distributed.liveness import Liveness, RankLost
from smpo.errors import RunError
from tests.devices.launching import (
    SMPO,
    TORCHRUN,
    distance,
    free_port,
    kill,
    only_run,
    ran,
    start,
    weights,
    write_spec,
)  # fmt: skip

STEPS = 40
SETTINGS = (f"--set=train.steps={STEPS}", "--set=evaluate=null")
TOLERANCE = 2e-5
"""Of the largest weight, after 40 updates of one process instead of two."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    write_spec(folder)
    said = ran(*SMPO, "run", "small.yaml", *SETTINGS, folder=folder)
    assert said.returncode == 0, said.stderr
    return only_run(folder)


@pytest.fixture
def words(tmp_path, alone):
    write_spec(tmp_path)
    return ("run", "small.yaml", "-q", *SETTINGS, f"--set=runtime.cache={alone.parents[1] / 'cache'}")


def steps(run):
    """Of the updates that were reported."""
    with suppress(OSError):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [line["step"] for line in lines if "train/loss" in line]
    return []


def killed(folder, process, rank, after=5):
    """SIGKILL to the process of this rank once `after` updates were reported."""
    kill(process, rank, once=lambda: any(len(steps(run)) >= after for run in folder.glob("runs/small/*-1")))


FAULT = pytest.mark.fault(
    "devices", "SIGKILL of one of two processes while training",
    "the other names it, writes a checkpoint of the last whole update and ends; `--resume` gets to the same weights",
)  # fmt: skip


@FAULT
def test_another_process_dies(tmp_path, alone, words):
    """The main one is left; the run goes on in one process, to the weights of a run in one process."""
    process = start((*SMPO, *words, "--devices", "2"), tmp_path)
    killed(tmp_path, process, rank=1)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - began < 60 and process.returncode == 1
    assert "error: process 1 of 2" in said and "ended without a word" in said and "--resume" in said
    assert "process 1 of 2 was ended by SIGKILL" in said and "Traceback" not in said
    run = only_run(tmp_path)
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert (run / f"checkpoints/step-{steps(run)[-1]:08d}/manifest.json").exists(), "nothing finished is lost"

    said = ran(*SMPO, *words, "--resume", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert steps(run) == list(range(1, STEPS + 1)), "no fork, no gap"
    assert distance(run, alone) < TOLERANCE


def both_there(process):
    ranks = set()
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            ranks.add(child.environ().get("RANK"))
    return {"0", "1"} <= ranks


@pytest.mark.fault(
    "devices", "SIGKILL of one of two processes before they have met",
    "the other is ended at once, and the error names the killed one",
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_dies_before_they_meet_isn_t_waited_for(tmp_path, rank):
    write_spec(tmp_path)
    process = start((*SMPO, "run", "small.yaml", "-q", "--devices", "2"), tmp_path)
    kill(process, rank, once=lambda: both_there(process))
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30 and process.returncode == 1
    assert f"process {rank} of 2 was ended by SIGKILL" in said and "--resume" in said
    assert f"process {1 - rank} of 2" not in said and "Traceback" not in said


def test_the_code_is_that_of_the_process_that_failed_first(tmp_path, monkeypatch, capfd):
    """A stand-in for `smpo`: rank 1 ends with 3, rank 0 is still at work and gets SIGTERM."""
    (tmp_path / "smpo.py").write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(3)\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["smpo"])
    began = time.monotonic()
    assert launch([], 2) == 3
    assert time.monotonic() - began < 30 and capfd.readouterr().err == "", "torch's table and log stay away"


@pytest.mark.parametrize(("grace", "saved"), [(60, True), (1, False)])
def test_a_survivor_has_time_for_its_checkpoint(tmp_path, monkeypatch, grace, saved):
    """A stand-in for `smpo`: rank 1 fails, rank 0 ignores SIGTERM and writes a file four seconds later."""
    (tmp_path / "smpo.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "here = pathlib.Path(__file__)\n"
        "if os.environ['RANK'] == '1':\n"
        "    while not here.with_name('ready').exists(): time.sleep(0.05)\n"
        "    sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "here.with_name('ready').touch(); time.sleep(4); here.with_name('saved').touch()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["smpo"])
    monkeypatch.setattr(launcher, "GRACE", grace)
    assert launch([], 2) == 3
    assert (tmp_path / "saved").exists() == saved


def test_ctrl_c_reaches_the_processes(tmp_path, monkeypatch):
    """A stand-in for `smpo` that an interrupt ends with 130."""
    (tmp_path / "smpo.py").write_text(
        "import os, pathlib, sys, time\n"
        "try:\n    pathlib.Path(__file__).with_name(os.environ['RANK']).touch(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["smpo"])

    def interrupt():
        while not all((tmp_path / rank).exists() for rank in "01"):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert launch([], 2) == 130
    thread.join()


@pytest.mark.slow
@FAULT
def test_the_main_process_dies(tmp_path, words):
    """Another one is left, and writes the checkpoint; two go on to the very weights of two that nobody killed."""
    process = start((*SMPO, *words, "--devices", "2"), tmp_path)
    killed(tmp_path, process, rank=0)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: process 0 of 2" in said and "process 0 of 2 was ended by SIGKILL" in said
    run = only_run(tmp_path)
    assert list((run / "checkpoints").glob("step-*/manifest.json")), "by the one that was left"
    said = ran(*SMPO, *words, "--resume", "--devices", 2, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert steps(run) == list(range(1, STEPS + 1))

    said = ran(*SMPO, *words, "--devices", 2, "--set=runtime.runs=straight", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    (straight,) = tmp_path.glob("straight/small/*-1")
    one, two = weights(run), weights(straight)
    assert all((one[name] == two[name]).all() for name in two), "bit for bit"


@pytest.mark.slow
@pytest.mark.fault(
    "devices", "SIGKILL of one of two processes under `torchrun --max-restarts`",
    "torchrun restarts both; they resume to the weights of an undisturbed run",
)  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_starts_them_again(tmp_path, alone, words, rank):
    launcher = (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "-m", "smpo")
    process = start((*launcher, *words, "--set=runtime.checkpoint_every=2"), tmp_path)
    killed(tmp_path, process, rank)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    run = only_run(tmp_path)
    assert steps(run) == list(range(1, STEPS + 1)), "no fork, no gap"
    assert distance(run, alone) < TOLERANCE


# ------------------------------------------------------------------------------------- the watch itself, in two threads


@pytest.fixture
def pair(monkeypatch):
    """Two livenesses of one process; what they would see of each other is put into the store by hand."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    port, calls = free_port(), {}

    def arrive(rank):
        place = RankInfo(rank, 2, rank, "127.0.0.1", port, "a test")
        calls[rank] = Liveness(place, silence=0.5, grace=0.5, every=0.05)

    # Threads share their environment: the other one must not arrive as rank 0.
    first = threading.Thread(target=arrive, args=(0,))
    first.start()
    time.sleep(0.2)
    arrive(1)
    first.join()
    handler = signal.getsignal(signal.SIGTERM)  # ignored after a loss, for the rest of a process's life
    yield calls[0], calls[1]
    signal.signal(signal.SIGTERM, handler)


def test_errors_that_come_of_an_absence_are_put_down_to_it(pair):
    first, second = pair
    with pytest.raises(ValueError, match="mine"), second.watching():
        raise ValueError("mine")
    with pytest.raises(RankLost, match="process 1 of 2 failed: ValueError: mine"), first.watching():
        raise RuntimeError("connection closed by peer")
    assert second.is_first_alive() is False or first.absent, "the main process speaks as long as it is there"


def test_silence_on_another_machine_is_noticed(pair):
    first, second = pair
    second._set("address/1", {"address": "elsewhere 1"})
    with pytest.raises(RankLost, match="process 1 of 2 hasn't been heard of for"), first.watching():
        time.sleep(1.0)
        raise RuntimeError("timeout")


def test_a_process_that_waits_inside_a_library_is_ended(pair, monkeypatch, capfd):
    """As inside NCCL, which no exception reaches."""
    first, second = pair
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: (ended.set(), first._over.set()))
    with pytest.raises(RunError), second.watching():
        raise RunError("no room")
    with first.watching():
        assert ended.wait(5)
    assert "error: process 1 of 2 failed: no room, and the others wait for it" in capfd.readouterr().err


def test_an_error_of_ones_own_stays_what_it_is(pair):
    first, second = pair
    alive = threading.Event()

    def work():
        with second.watching():
            alive.wait(5)

    other = threading.Thread(target=work)
    other.start()
    with pytest.raises(ZeroDivisionError), first.watching():
        raise ZeroDivisionError
    alive.set()
    other.join()


def threads():
    return {thread.name for thread in threading.enumerate()}


def test_they_meet_when_all_are_there(pair):
    first, second = pair
    came = []
    other = threading.Thread(target=lambda: (time.sleep(0.3), came.append(1), second.barrier(), second.barrier()))
    other.start()
    first.barrier()
    assert came, "not before the other"
    first.barrier()
    other.join()
    with second.watching():
        assert "liveness" in threads()
    assert "liveness" not in threads(), "its watch is over before the process is"
    with pytest.raises(RankLost, match="process 1 of 2 has stopped"), first.watching():
        first.barrier()


def test_who_fails_isn_t_waited_for(pair):
    first, second = pair
    with pytest.raises(RunError), second.watching():
        raise RunError("the judge is out", help="ask another")
    began = time.monotonic()
    with pytest.raises(RankLost, match="process 1 of 2 failed: the judge is out") as lost, first.watching():
        first.barrier()
    assert time.monotonic() - began < 2 and lost.value.help == "ask another"
