"""Which device a trial gets: a GPU each where there are some, else one thread of the CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from smpo.experiment import ExperimentSpec

__all__ = ["environment", "may_fork", "visible_gpus"]

_DEVICES = Path("/dev")


def environment(spec: ExperimentSpec, gpus: list[str], slot: int) -> dict[str, str]:
    """What a trial in this slot finds in its environment."""
    found = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(spec.runtime.threads or 1))}
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return found


def visible_gpus(spec: ExperimentSpec) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may be set to for one device each; empty where trials use the CPU."""
    if spec.runtime.device == "cpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one]
    numbers = [path.name.removeprefix("nvidia") for path in _DEVICES.glob("nvidia[0-9]*")]
    return sorted((one for one in numbers if one.isdigit()), key=int)


def may_fork(spec: ExperimentSpec) -> bool:
    """Only where no GPU can be involved, and where forking exists and is sound."""
    cpu = spec.runtime.device == "cpu" or (spec.runtime.device == "auto" and not (_DEVICES / "nvidiactl").exists())
    return sys.platform == "linux" and cpu
