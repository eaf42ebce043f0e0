"""Two processes, started by smpo, torchrun, accelerate and Slurm, train to the weights of one."""

import json

import pytest

from tests.cli.words import smpo
from tests.devices.launching import (
    ACCELERATE,
    SMPO,
    TORCHRUN,
    distance,
    free_port,
    only_run,
    ran,
    start,
    write_spec,
)

TOLERANCE = 2e-6
"""Of the largest weight. The gradients of two processes are summed in another order than those of one. Float32 rounds
to 6e-8; AdamW's first updates divide by the gradient's size, so where that is tiny the rounding can weigh more."""

CURVE = {"rel": 1e-4, "abs": 1e-4}
"""A margin is 250 times a difference of four errors of about .02 to .05, whose networks' outputs are right to 1e-6: a
mean of few margins, whatever its value, to some 1e-5."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process, and the caches that all share."""
    folder = tmp_path_factory.mktemp("alone")
    write_spec(folder)
    said = ran(*SMPO, "run", "small.yaml", folder=folder)
    assert said.returncode == 0, said.stderr
    return only_run(folder)


@pytest.fixture
def words(tmp_path, alone):
    write_spec(tmp_path)
    return ("run", "small.yaml", f"--set=runtime.cache={alone.parents[1] / 'cache'}")


def same(folder, alone):
    run = only_run(folder)
    assert distance(run, alone) < TOLERANCE
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    one, two = ([json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()] for r in (alone, run))
    assert [line["step"] for line in one] == [line["step"] for line in two], "one process wrote, once"
    for before, after in zip(one, two, strict=True):
        for name, value in before.items():
            if name.startswith("train/") and "second" not in name:
                assert after[name] == pytest.approx(value, **CURVE), name
    evaluated = [json.loads((r / "evaluation.json").read_text()) for r in (alone, run)]
    assert evaluated[0]["headline"] == evaluated[1]["headline"]
    close(evaluated[0]["judgements"], evaluated[1]["judgements"])
    return run


def close(one, two):
    """The same pictures, judged alike: numbers to the rounding of the weights, everything else to the letter."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        close(list(one.values()), list(two.values()))
    elif isinstance(one, list):
        for before, after in zip(one, two, strict=True):
            close(before, after)
    elif isinstance(one, float):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)
    else:
        assert one == two


def test_devices(tmp_path, alone, words):
    """Eight pairs each, in two micro-batches: gradients meet with the second."""
    said = ran(*SMPO, *words, "--devices", 2, "--set=runtime.micro_batch=4", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    run = same(tmp_path, alone)
    assert said.stdout.count("2 devices") == 1 and said.stdout.count("win rate [95 %]") == 1, "one process speaks"
    assert json.loads((run / "plan.json").read_text())["devices"] == 2


@pytest.mark.slow
def test_torchrun(tmp_path, alone, words):
    said = ran(*TORCHRUN, "--standalone", "--nproc-per-node", 2, "-m", "smpo", *words, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("win rate [95 %]") == 1
    same(tmp_path, alone)
    again = ran(*TORCHRUN, "--standalone", "--nproc-per-node", 2, "-m", "smpo", *words, folder=tmp_path)
    assert again.returncode == 1 and again.stderr.count("error: this experiment was run before") == 1


@pytest.mark.slow
def test_torchrun_on_two_machines(tmp_path, alone, words):
    """The line of docs/devices.md, once a machine; here both are this one, which shares its files with itself."""
    where = ("--rdzv-id", "4711", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}")
    line = (*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", *where, "-m", "smpo", *words)
    agents = [start(line, tmp_path) for _ in range(2)]
    said = [agent.communicate(timeout=240) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "".join(out for out, _ in said).count("win rate [95 %]") == 1, "one process of all speaks"
    same(tmp_path, alone)


@pytest.mark.slow
def test_accelerate(tmp_path, alone, words):
    launcher = (*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--main_process_port", str(free_port()))
    said = ran(*launcher, "-m", "smpo", *words, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("win rate [95 %]") == 1
    same(tmp_path, alone)


@pytest.mark.slow
def test_srun(tmp_path, alone, words):
    """`srun` starts the command once a task and speaks through these variables."""
    step = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(free_port())}
    tasks = [
        start((*SMPO, *words), tmp_path, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **step) for rank in (1, 0)
    ]
    said = [task.communicate(timeout=240) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert said[0][0] == "" and "win rate [95 %]" in said[1][0], "only the main process speaks"
    same(tmp_path, alone)


def test_what_a_launcher_can_not_do_is_said(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = smpo(capfd, "run", spec)
    assert said.code == 1 and "MASTER_ADDR isn't" in said.err
    monkeypatch.setenv("RANK", "x")
    assert "RANK='x', which is no number" in smpo(capfd, "run", spec).err
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    said = smpo(capfd, "sweep", "plane_sweep")
    assert said.code == 3 and "a launcher started 2 processes, and a sweep is the work of one" in said.err
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    said = smpo(capfd, "run", spec)
    assert said.code == 1 and "accelerate's configuration asks for DeepSpeed" in said.err
