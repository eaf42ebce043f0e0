"""The rank of this process, from the environment variables of `torchrun`, `accelerate launch` and `srun`.

Torch and accelerate read torchrun's names; Slurm's are translated to them. Imports no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from smpo.errors import RunError

__all__ = ["RankInfo", "export_environment", "first_node", "rank_from_environment"]

_PORTS = range(20_000, 40_000)
"""Ports of the store of a Slurm step where MASTER_PORT is unset; below those that systems hand out."""

_OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@dataclass(frozen=True)
class RankInfo:
    """Process `rank` of `world`; `local` counts on its own machine. The store's server is `address`:`port`."""

    rank: int
    world: int
    local: int
    address: str
    port: int
    launcher: str
    """The launcher's name, for messages."""
    restarts: int = 0
    """How often the launcher has restarted all processes."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def __str__(self) -> str:
        return f"process {self.rank} of {self.world}"


def rank_from_environment(environment: Mapping[str, str] | None = None) -> RankInfo | None:
    """The rank that a launcher gave to this process; None without a launcher. Raises `RunError` where a variable is
    missing or no number, and for launchers that smpo would ignore (DeepSpeed, FSDP and Megatron of accelerate)."""
    variables = os.environ if environment is None else environment
    for flag, name in _OTHERS.items():
        if variables.get(flag, "").lower() in {"1", "true"}:
            raise RunError(
                f"accelerate's configuration asks for {name}, which would be ignored here",
                help="`accelerate launch --multi_gpu` starts the processes; how they share the work is the spec's",
            )
    if "RANK" in variables and "WORLD_SIZE" in variables:
        return _torchrun(variables)
    # Slurm sets SLURM_PROCID and SLURM_NTASKS in a batch script too, which is one process: only a step has these.
    if _number(variables, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in variables:
        return _slurm(variables)
    return None


def export_environment(place: RankInfo, environment: MutableMapping[str, str] | None = None) -> None:
    """Set the variables that torch and accelerate read."""
    variables = os.environ if environment is None else environment
    variables.update(
        {
            "RANK": str(place.rank),
            "WORLD_SIZE": str(place.world),
            "LOCAL_RANK": str(place.local),
            "MASTER_ADDR": place.address,
            "MASTER_PORT": str(place.port),
        }
    )


def _torchrun(variables: Mapping[str, str]) -> RankInfo | None:
    rank, world = _number(variables, "RANK"), _number(variables, "WORLD_SIZE")
    elastic = "TORCHELASTIC_RUN_ID" in variables
    if world == 1 and not elastic:
        return None
    if "MASTER_ADDR" not in variables:
        raise RunError(
            f"RANK={rank} and WORLD_SIZE={world} are set, and MASTER_ADDR isn't: the processes can't find each other",
            help="unset RANK and WORLD_SIZE, or start them with torchrun",
        )
    return RankInfo(
        rank,
        world,
        _number(variables, "LOCAL_RANK", rank),
        variables["MASTER_ADDR"],
        _number(variables, "MASTER_PORT", 29_500),
        "torchrun" if elastic else "a launcher",
        _number(variables, "TORCHELASTIC_RESTART_COUNT", 0),
    )


def _slurm(variables: Mapping[str, str]) -> RankInfo:
    job, step = _number(variables, "SLURM_JOB_ID", 0), _number(variables, "SLURM_STEP_ID", 0)
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    # With `--gpus-per-task=1` a task sees one GPU, which is number 0 to it.
    alone = len([gpu for gpu in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]) == 1
    return RankInfo(
        _number(variables, "SLURM_PROCID"),
        _number(variables, "SLURM_STEP_NUM_TASKS"),
        0 if alone else _number(variables, "SLURM_LOCALID", 0),
        variables.get("MASTER_ADDR") or first_node(nodes),
        _number(variables, "MASTER_PORT", _PORTS[(7 * job + step) % len(_PORTS)]),
        "Slurm",
        _number(variables, "SLURM_RESTART_COUNT", 0),
    )


def first_node(nodes: str) -> str:
    """The first of Slurm's list: `gpu[007-010,12],cpu1` -> `gpu007`."""
    match = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        return nodes
    return "".join(part or "" for part in match.groups())


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name, "")
    if not text and default is not None:
        return default
    try:
        return int(text)
    except ValueError:
        raise RunError(f"the environment says {name}={text!r}, which is no number", help=f"unset {name}") from None
