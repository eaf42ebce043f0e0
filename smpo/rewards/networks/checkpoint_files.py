"""Reading published reward checkpoints: tensors only, never code.

Many rewards were published as `.pt` or `.pth`. Those are pickles, and an ordinary pickle may run anything. They are
read with `torch.load(weights_only=True)`, which knows tensors and containers and refuses the rest; a file that holds
a whole module (MPS's, for one) has to be saved again, by its owner, in an environment that trusts it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smpo.errors import MachineError
from smpo.weights import locate

__all__ = ["checkpoint_file", "fill", "read_tensors"]

_INSIDE = ("state_dict", "model", "module")
"""Where trainers put the weights within a checkpoint."""


def checkpoint_file(
    place: str | Path, file: str, *, what: str, revision: str | None = None, also: Sequence[str] = ()
) -> Path:
    """The checkpoint `file` of a folder or hub repository; `place` may be the file itself.

    Raises `MachineError` when it isn't here and can't be fetched. `also`: more files to fetch beside it.
    """
    direct = Path(place).expanduser()
    if direct.is_file():
        return direct
    folder = locate(place, what=what, patterns=[_literal(file), *also], revision=revision)
    if not (folder / file).is_file():
        others = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES))
        raise MachineError(
            f"{folder} has no {file}, which should hold {what}",
            help=f"it has {others}: set `file`" if others else "copy the checkpoint there, or set `weights`",
        )
    return folder / file


def read_tensors(path: Path, *, what: str) -> dict[str, Tensor]:
    """Names and tensors of a `.safetensors`, `.pt` or `.pth` file, on the CPU, without executing anything in it."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise MachineError(f"{what} in {path} can't be read: {error}") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MachineError(
            f"{path} holds more than tensors, and smpo does not run code from weight files",
            help=f"where you trust it and its package is installed, save its tensors once: {_CONVERT}; "
            "then give that file instead",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise MachineError(f"{what} in {path} can't be read: {_first_line(error)}") from error
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    tensors = {str(key): value for key, value in _items(found) if isinstance(value, Tensor)}
    if not tensors:
        raise MachineError(f"{path} holds no tensors by name, so it is not {what}")
    return tensors


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, what: str) -> None:
    """Put the tensors into the module, in its own precision. Raises `MachineError` unless names and shapes agree."""
    wanted = module.state_dict()
    missing, left = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape)
    told = [
        f"{_some(names)} {text}"
        for names, text in ((missing, "absent"), (left, "unknown"), (wrong, "of another shape"))
        if names
    ]
    if told:
        raise MachineError(
            f"{path} is not {what}: {'; '.join(told)}",
            help="check that `weights`, `file` and the CLIP it was made from belong together",
        )
    module.load_state_dict(dict(tensors))


_SUFFIXES = (".pt", ".pth", ".safetensors", ".bin")
_CONVERT = (
    "`m = torch.load(FILE, weights_only=False); "
    "safetensors.torch.save_file({k: v.contiguous() for k, v in m.state_dict().items()}, 'weights.safetensors')`"
)


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _items(found: Any) -> list[tuple[Any, Any]]:
    return list(found.items()) if isinstance(found, Mapping) else []


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
