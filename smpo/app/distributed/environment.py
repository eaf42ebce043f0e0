"""Where this process stands among those of its run: what `torchrun`, `accelerate launch` and `srun` tell it.

All of them start the same command several times and say who is who by environment variables. Torch and accelerate read
torchrun's names; what Slurm says is translated to them. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from smpo.errors import RunError

__all__ = ["LAUNCHER", "PRESENT", "RankInfo", "export_environment", "first_node", "rank_from_environment"]

LAUNCHER = "SMPO_LAUNCHER"
"""Environment variable by which `smpo run --devices` says that it is the launcher."""

PRESENT = "SMPO_PRESENT"
"""Environment variable: into which open file a process of `smpo run --devices` writes its rank once it watches."""

_PORTS = range(20_000, 40_000)
"""Where the processes of a Slurm step meet, unless MASTER_PORT says; below the ports that systems hand out."""

_OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@dataclass(frozen=True)
class RankInfo:
    """Process `rank` of `world`; `local` counts on its own machine. All meet at `address`:`port`."""

    rank: int
    world: int
    local: int
    address: str
    port: int
    launcher: str
    """Who started it, for people."""
    restarts: int = 0
    """How often the launcher has started all of them again."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def __str__(self) -> str:
        return f"process {self.rank} of {self.world}"


def rank_from_environment(environment: Mapping[str, str] | None = None) -> RankInfo | None:
    """The place that a launcher gave to this process; None when it runs by itself. Raises `RunError` for a launcher
    that says only half."""
    told = os.environ if environment is None else environment
    for flag, name in _OTHERS.items():
        if told.get(flag, "").lower() in {"1", "true"}:
            raise RunError(
                f"accelerate's configuration asks for {name}, which would be ignored here",
                help="`accelerate launch --multi_gpu` starts the processes; how they share the work is the spec's",
            )
    if "RANK" in told and "WORLD_SIZE" in told:
        return _torchrun(told)
    # Slurm sets SLURM_PROCID and SLURM_NTASKS in a batch script too, which is one process: only a step has these.
    if _number(told, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in told:
        return _slurm(told)
    return None


def export_environment(place: RankInfo, environment: MutableMapping[str, str] | None = None) -> None:
    """Say it in the names that torch and accelerate look for."""
    told = os.environ if environment is None else environment
    told.update(
        {
            "RANK": str(place.rank),
            "WORLD_SIZE": str(place.world),
            "LOCAL_RANK": str(place.local),
            "MASTER_ADDR": place.address,
            "MASTER_PORT": str(place.port),
        }
    )


def _torchrun(told: Mapping[str, str]) -> RankInfo | None:
    rank, world = _number(told, "RANK"), _number(told, "WORLD_SIZE")
    elastic = "TORCHELASTIC_RUN_ID" in told
    if world == 1 and not elastic:
        return None  # there is nobody to join
    if "MASTER_ADDR" not in told:
        raise RunError(
            f"RANK={rank} and WORLD_SIZE={world} are set, and MASTER_ADDR isn't: the processes can't find each other",
            help="unset RANK and WORLD_SIZE, or start them with torchrun",
        )
    return RankInfo(
        rank,
        world,
        _number(told, "LOCAL_RANK", rank),
        told["MASTER_ADDR"],
        _number(told, "MASTER_PORT", 29_500),
        "torchrun" if elastic else told.get(LAUNCHER, "a launcher"),
        _number(told, "TORCHELASTIC_RESTART_COUNT", 0),
    )


def _slurm(told: Mapping[str, str]) -> RankInfo:
    job, step = _number(told, "SLURM_JOB_ID", 0), _number(told, "SLURM_STEP_ID", 0)
    nodes = told.get("SLURM_STEP_NODELIST") or told.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    # With `--gpus-per-task=1` a task sees one GPU, which is number 0 to it.
    alone = len([gpu for gpu in told.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]) == 1
    return RankInfo(
        _number(told, "SLURM_PROCID"),
        _number(told, "SLURM_STEP_NUM_TASKS"),
        0 if alone else _number(told, "SLURM_LOCALID", 0),
        told.get("MASTER_ADDR") or first_node(nodes),
        _number(told, "MASTER_PORT", _PORTS[(7 * job + step) % len(_PORTS)]),
        "Slurm",
        _number(told, "SLURM_RESTART_COUNT", 0),
    )


def first_node(nodes: str) -> str:
    """Of Slurm's list: `gpu[007-010,12],cpu1` -> `gpu007`."""
    found = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    if found is None:
        return nodes
    return "".join(part or "" for part in found.groups())


def _number(told: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = told.get(name, "")
    if not text and default is not None:
        return default
    try:
        return int(text)
    except ValueError:
        raise RunError(
            f"the environment says {name}={text!r}, which is no number", help=f"unset {name}"
        ) from None
