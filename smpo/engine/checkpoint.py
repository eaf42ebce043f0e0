"""Checkpoints: written whole or not at all, checked on reading, without pickle.

A checkpoint is a folder `step-00000120/` with `weights.safetensors` (trained parameters), `average.safetensors` (the
moving average, when there is one), `inversion.safetensors` (what the inversion remembers, if it does),
`optimiser.safetensors` + `optimiser.json`, and `manifest.json`, which is written last and holds the SHA-256 of the
others. There is no random state to save: every draw is a function of the seed and the sample's position.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smpo.engine.ema import Average
from smpo.engine.kept import MANIFEST, checkpoints, digest, fault_of

__all__ = ["restore", "save"]

_MEMORY = "inversion.safetensors"


def save(
    folder: Path,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    average: Average | None,
    *,
    spec_hash: str,
    keep: int,
    memory: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the state after `step` updates and drop all but the newest `keep`. Atomic: a kill leaves the old ones."""
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / f"step-{step:08d}", folder / f".writing-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file(
        {n: p.detach().cpu().contiguous() for n, p in parameters.items()}, draft / "weights.safetensors"
    )
    if average is not None:
        save_file({n: t.cpu().contiguous() for n, t in average.shadow.items()}, draft / "average.safetensors")
    if memory:
        save_file({n: t.detach().cpu().contiguous() for n, t in memory.items()}, draft / _MEMORY)
    tensors, rest = _split(optimiser.state_dict())
    save_file(tensors, draft / "optimiser.safetensors")
    (draft / "optimiser.json").write_text(json.dumps(rest))
    files = {file.name: digest(file) for file in sorted(draft.iterdir())}
    manifest = {"step": step, "spec": spec_hash, "files": files}
    with (draft / MANIFEST).open("w") as stream:
        json.dump(manifest, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    shutil.rmtree(target, ignore_errors=True)
    draft.replace(target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def restore(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer | None,
    average: Average | None,
    *,
    say: Callable[[str], None],
    remember: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> int:
    """Load the newest checkpoint that is whole; returns the number of updates it holds, 0 when there is none.

    `remember` is given what the inversion had in mind, where it was saved.

    A torn, truncated or altered one is passed over, in words, for the one before.
    """
    for path in reversed(checkpoints(folder)):
        fault = fault_of(path)
        if fault is None:
            _load(path, parameters, optimiser, average)
            if remember is not None and (path / _MEMORY).exists():
                remember(load_file(path / _MEMORY))
            return int(path.name.removeprefix("step-"))
        say(f"checkpoint {path.name} can't be used ({fault}); trying the one before")
    return 0


def _load(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer | None,
    average: Average | None,
) -> None:
    weights = load_file(path / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    if average is not None:
        average.load(load_file(path / "average.safetensors"))
    if optimiser is not None:
        rest = json.loads((path / "optimiser.json").read_text())
        optimiser.load_state_dict(_join(load_file(path / "optimiser.safetensors"), rest))


def _split(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state dict as flat tensors plus JSON."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def _join(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in rest["state"].items()}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["param_groups"]}
