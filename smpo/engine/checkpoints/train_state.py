"""What an update changes, as tensors and JSON: all that must be kept for a run to go on as if it had never stopped.

There is no random state in it: every draw is a function of the seed and the sample's position (`smpo.maths.draws`),
and so are the order of the data and the learning rate. Nor are there ids of trackers: a run that is killed before its
first checkpoint has to find its curves too, so they stand in the run's folder from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.overflow import Overflows
from smpo.engine.sharding import distribute_like, full_tensor

__all__ = ["Snapshot", "TrainState", "load_snapshot", "snapshot"]

_TENSOR = "tensor:"


@dataclass(frozen=True)
class TrainState:
    """The live objects of a run whose content is kept."""

    parameters: Mapping[str, nn.Parameter]
    """The trained ones, by name."""
    optimiser: torch.optim.Optimizer | None = None
    """None: only the weights are wanted."""
    average: ExponentialMovingAverage | None = None
    scaler: torch.amp.GradScaler | None = None
    """Of fp16 losses: its scale, and the updates since it last overflowed."""
    overflows: Overflows | None = None
    """Counts of fp16's skipped attempts."""


@dataclass(frozen=True)
class Snapshot:
    """The content at one moment, on the CPU: tensors by file and name, and JSON by file."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    plain: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for file in self.tensors.values() for tensor in file.values())


def snapshot(state: TrainState, *, copy: bool = False) -> Snapshot:
    """`copy`: the tensors are its own, so that training may go on while they are written. Where a policy is sharded
    all processes have to call it, and the main one gets the content: files that any number can go on from."""
    tensors = {"weights": {name: _kept(p, copy) for name, p in state.parameters.items()}}
    plain: dict[str, Any] = {}
    if state.average is not None:
        tensors["average"] = {name: _kept(t, copy) for name, t in state.average.shadow.items()}
    if state.optimiser is not None:
        tensors["optimiser"] = {}
        plain["optimiser"] = _extract_tensors(state.optimiser.state_dict(), "", tensors["optimiser"], copy)
        _unshare_storage(tensors["optimiser"])
    if state.scaler is not None and state.scaler.is_enabled():
        counts = state.overflows.state_dict() if state.overflows is not None else {}
        plain["scaler"] = {**state.scaler.state_dict(), **counts}
    return Snapshot(tensors, plain)


def load_snapshot(state: TrainState, kept: Snapshot) -> None:
    """Make the live objects what they were; of those that are dealt out over processes each takes its part.

    When they don't fit, raises what the objects raise: `LookupError`, `ValueError`, `RuntimeError`.
    """
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(distribute_like(parameter, kept.tensors["weights"][name]))
    if state.average is not None:
        state.average.load(kept.tensors["average"])
    if state.optimiser is not None:
        found = _restore_tensors(kept.plain["optimiser"], kept.tensors["optimiser"])
        trained = [p for group in state.optimiser.param_groups for p in group["params"]]
        found["state"] = {
            int(index): {
                n: distribute_like(trained[int(index)], v) if isinstance(v, Tensor) else v for n, v in values.items()
            }
            for index, values in found["state"].items()
        }
        state.optimiser.load_state_dict(found)
    if state.scaler is not None and state.scaler.is_enabled():
        state.scaler.load_state_dict(kept.plain["scaler"])
        if state.overflows is not None:
            state.overflows.load_state_dict(kept.plain["scaler"])


def _kept(tensor: Tensor, copy: bool) -> Tensor:
    held = tensor.detach()
    full = full_tensor(held)
    if full is not held and dist.is_initialized() and dist.get_rank():
        return torch.empty(0)  # the main process writes
    there = full.to("cpu", copy=copy)
    return there.contiguous()


def _unshare_storage(tensors: dict[str, Tensor]) -> None:
    """Give each tensor memory of its own, which files want: some optimisers share a table among parameters."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[name] = tensor.clone()
        seen.add(place)


def _extract_tensors(value: Any, path: str, tensors: dict[str, Tensor], copy: bool) -> Any:
    """The same with each tensor replaced by its name in `tensors`. Optimisers nest as they please."""
    if isinstance(value, Tensor):
        tensors[path] = _kept(value, copy)
        return _TENSOR + path
    if isinstance(value, Mapping):
        return {
            str(key): _extract_tensors(one, f"{path}.{key}".lstrip("."), tensors, copy) for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_extract_tensors(one, f"{path}.{place}", tensors, copy) for place, one in enumerate(value)]
    return value


def _restore_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {key: _restore_tensors(one, tensors) for key, one in value.items()}
    if isinstance(value, list):
        return [_restore_tensors(one, tensors) for one in value]
    return value
