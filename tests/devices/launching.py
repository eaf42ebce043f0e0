"""Runs of several real processes, as a person starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from tests.cli.words import SMALL_PLANE
from tests.paths import python_path

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")
SMPO = (sys.executable, "-m", "smpo")

SHAPES = """\
name: small
model: shapes
data: {use: shapes-pairs, limit: 16}
reward: shapes-reward
objective: {use: smpo, beta: 500}
smoothing: likelihood
inversion: {use: renoise, steps: 3, by: policy}
train: {steps: 3, batch: 8, lr: 1e-4, clip: 1.0, ema: 0.9}
runtime: {threads: 1, tracking: none}
"""
"""A small policy of pictures; what a test needs besides is set."""


def write_spec(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL_PLANE)
    return path


def environment(**more: str) -> dict[str, str]:
    """Without what another launcher may have said."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "SMPO_"))}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": python_path(), **more}


def start(words: tuple[str, ...], folder: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, cwd=folder, env=environment(**more), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ran(*words: object, folder: Path, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
    process = start(tuple(map(str, words)), folder, **more)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def kill(process: subprocess.Popen[str], rank: int, *, once: Callable[[], bool]) -> None:
    """SIGKILL to the process of this rank, once it is time."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if once():
            (victim,) = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if child.environ().get("RANK") == str(rank)
            ]
            victim.send_signal(signal.SIGKILL)
            return
        time.sleep(0.01)
    raise AssertionError("the run ended before it could be killed: " + "".join(process.communicate()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def only_run(folder: Path, name: str = "small") -> Path:
    (run,) = folder.glob(f"runs/{name}/*-1")
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def distance(one: Path, two: Path) -> float:
    """The largest difference of any two weights, as a share of the largest weight."""
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    largest = max(float(x.abs().max()) for x in first.values())
    return max(float((first[k] - second[k]).abs().max()) for k in first) / largest


def trained(run: Path) -> dict[str, torch.Tensor]:
    """What was trained, and its moving average, as the last checkpoint holds them."""
    last = max((run / "checkpoints").glob("step-*"))
    return {
        f"{file.stem}/{name}": tensor
        for file in (last / "weights.safetensors", last / "average.safetensors")
        if file.exists()
        for name, tensor in load_file(file).items()
    }
