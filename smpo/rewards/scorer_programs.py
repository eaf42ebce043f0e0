"""Which programs this machine has for scorers that run in processes of their own. Imports no torch.

The file is the user's: `~/.config/smpo/scorers.toml`, or what SMPO_SCORERS names. It is never looked for beside a
spec, so nothing that is checked out can say what is run. `smpo.rewards.process` shows what is in it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpo.errors import MachineError

__all__ = ["WORKERS", "WorkerCommand", "config_file", "find_worker"]

WORKERS = Path(__file__).parent / "workers"
"""Workers that smpo ships, each a script for another Python."""
_KEYS = {"command", "python", "start_timeout", "timeout", "restarts", "environment"}


@dataclass(frozen=True)
class WorkerCommand:
    """What a name stands for on this machine. Seconds; `restarts` is how often in a row."""

    name: str
    command: tuple[str, ...]
    start_timeout: float = 900.0
    timeout: float = 300.0
    restarts: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)


def find_worker(name: str) -> WorkerCommand:
    """What `name` stands for here. Raises `MachineError` with what to write where, when nothing does."""
    path = config_file()
    entries = _entries(path)
    entry = entries.get(name)
    # Not called like the package it is for: a script's folder comes first on its path.
    shipped = WORKERS / f"{name.replace('-', '_')}_worker.py"
    shipped_here = shipped.is_file() and name != "smpo"
    if not isinstance(entry, Mapping):
        line = 'python = "/path/to/its/python"' if shipped_here else 'command = ["/path/to/program"]'
        raise MachineError(
            f"no scorer is called `{name}` on this machine",
            help=f"write `[{name}]` and `{line}` into {path}",
        )
    if unknown := sorted(entry.keys() - _KEYS):
        raise MachineError(f"`[{name}]` in {path} has `{unknown[0]}`, which means nothing", help=_known())
    if "command" in entry:
        command = entry["command"]
        if not isinstance(command, list) or not command or not all(isinstance(one, str) for one in command):
            raise MachineError(f"`command` of `[{name}]` in {path} should be a list of words")
    elif isinstance(entry.get("python"), str) and shipped_here:
        command = [entry["python"], str(shipped)]
    elif shipped_here:
        raise MachineError(f"`[{name}]` in {path} says neither `python` nor `command`")
    else:
        raise MachineError(f"`[{name}]` in {path} has no `command`, and smpo ships no worker of that name")
    numbers = {key: float(entry[key]) for key in ("start_timeout", "timeout") if _positive(entry.get(key), key, path)}
    return WorkerCommand(
        name=name,
        command=tuple(_home(word) for word in command),
        restarts=int(entry.get("restarts", WorkerCommand.restarts)),
        environment={str(key): str(value) for key, value in entry.get("environment", {}).items()},
        **numbers,
    )


# ------------------------------------------------------------------------------------------------------------


def config_file() -> Path:
    """Where names are turned into programs, whether or not there is such a file."""
    named = os.environ.get("SMPO_SCORERS")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "smpo" / "scorers.toml"


def _entries(path: Path) -> dict[str, Any]:
    try:
        content, mode = path.read_bytes(), path.stat().st_mode
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise MachineError(f"{path} can't be read: {error.strerror or error}") from error
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise MachineError(
            f"{path} says which programs smpo runs, and everybody on this machine may write to it",
            help=f"`chmod o-w {path}`",
        )
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MachineError(f"{path} is not TOML: {error}") from error


def _positive(value: Any, key: str, path: Path) -> bool:
    if value is None:
        return False
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise MachineError(f"`{key}` in {path} should be a number of seconds")
    return True


def _home(word: str) -> str:
    return str(Path(word).expanduser()) if word.startswith("~") else word


def _known() -> str:
    return f"it may have {', '.join(f'`{key}`' for key in sorted(_KEYS))}"
