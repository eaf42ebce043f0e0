"""Workers on a cluster: submitit's own local engine, and a stand-in for `sbatch` that keeps what it was given."""

import os
import subprocess
import sys

import pytest

from smpo.app.sweep.study import find_study
from smpo.app.sweep.workers.slurm import Worker, _minutes, submit
from smpo.errors import MachineError, RunError
from tests.cli.words import smpo
from tests.sweep.test_workers import ROOT, wait_for
from tests.sweep.words import small

pytest.importorskip("submitit", reason="submitit is an extra (smpo[cluster])")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of programs in which `sbatch` copies the script, and takes nothing for the partition `full`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    sbatch = programs / "sbatch"
    sbatch.write_text(
        "#!/bin/sh\n"
        f"grep -q 'partition=full' $1 && echo 'sbatch: error: invalid partition' >&2 && exit 1\n"
        f"cp $1 {tmp_path}/script.sh\necho Submitted batch job 4711\n"
    )
    (programs / "srun").write_text("#!/bin/sh\n")
    for one in programs.iterdir():
        one.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "script.sh"


def test_an_array_of_workers_as_a_person_types_it(slurm, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = small(tmp_path)
    sets = [word for one in prepared.request.sets for word in ("-s", one)]
    options = ["-o", "partition=gpu", "-o", "gpus_per_node=1", "-o", "time=12h", "-o", "nice=100"]
    said = smpo(capfd, "sweep", "small.yaml", "--trials", 20, "--workers", 3, *options, *sets)
    assert said.code == 0, said.err
    assert "submitted  3 workers to slurm: 4711_0 … 4711_2" in said.out
    assert "every worker must see it" in said.out
    script = slurm.read_text()
    for line in (
        "--array=0-2%",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--time=720",
        "--nice=100",
        "--signal=USR2@120",
    ):
        assert line in script, script
    assert find_study(prepared).counts().waiting == 1, "the study is there before its workers"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "partition=full"], "invalid partition"),
        (["-o", "partition"], "is not an option"),
        (["-o", "time=soon"], "is not a time"),
        (["-o", "partition=gpu", "--on", "local"], "is an option of Slurm"),
    ],
)
def test_what_a_cluster_refuses_is_said(slurm, tmp_path, capfd, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    sets = [word for one in small(tmp_path).request.sets for word in ("-s", one)]
    found = smpo(capfd, "sweep", "small.yaml", "--workers", 2, *options, *sets)
    assert found.code == 1 and said in found.err, found.err


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="no Slurm here"):
        submit(["true"], workers=1, on="slurm", folder=tmp_path / "jobs", name="x", options={})


def test_two_workers_of_the_local_engine_finish_a_study(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENTHS", "1")
    prepared = small(tmp_path)
    monkeypatch.chdir(ROOT)
    command = [
        sys.executable,
        "-m",
        "tests.sweep.fake_worker",
        str(tmp_path / "small.yaml"),
        str(tmp_path / "runs"),
        "5",
        "1",
    ]
    jobs = submit(command, workers=2, on="local", folder=tmp_path / "jobs", name="small", options={"time": "5"})
    assert len(set(jobs)) == 2

    def finished() -> bool:
        try:
            return find_study(prepared).counts().finished == 5
        except RunError:
            return False

    wait_for(finished)
    wait_for(lambda: len(list((tmp_path / "jobs").glob("*_result.pkl"))) == 2)


def test_a_worker_that_has_to_leave_ends_politely_and_is_queued_again(tmp_path):
    script = (
        "import signal, time, pathlib, sys\n"
        "def end(*_): pathlib.Path('ended').touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); pathlib.Path('began').touch(); time.sleep(60)\n"
    )
    worker = Worker([sys.executable, "-c", script], tmp_path)
    worker._child = subprocess.Popen(worker._command, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "began").exists(), 30)
    again = worker.checkpoint()
    assert (tmp_path / "ended").exists() and worker._child.returncode == 0
    assert isinstance(again.function, Worker) and again.function._command == worker._command


@pytest.mark.parametrize(("text", "minutes"), [("90", 90), ("12h", 720), ("1h30m", 90), ("45m", 45)])
def test_times(text, minutes):
    assert _minutes(text) == minutes
