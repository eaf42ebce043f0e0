"""A run goes on where it lies, from whatever folder it is named and wherever it was moved.

Paths in specs are relative to the folder that a command is typed in, and so is `runtime.runs`. The name of a
run's own folder means that folder: its spec, read from elsewhere, would begin another run there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smpo.errors import RunError
from smpo.runs.store import RunFolder, is_run
from smpo.spec.leaves import leaves
from smpo.spec.read import read
from smpo.spec.source import open_source
from smpo.spec.tree import plain

__all__ = ["named_run", "settings_of", "whereabouts"]


def named_run(word: str, *, resume: bool) -> RunFolder | None:
    """The run that is meant where a spec is expected: by its folder, or by its `resolved.yaml` if it is to go on.

    That file alone is a spec like any other. Raises `RunError` where a run's folder holds none.
    """
    path = Path(word)
    if resume and path.name == "resolved.yaml" and is_run(path.parent):
        return RunFolder(path.parent)
    if not (path.is_dir() and is_run(path)):
        return None
    run = RunFolder(path)
    if not run.resolved.is_file():
        raise RunError(f"{run.path} holds no resolved.yaml", help="it stopped before it had begun: run its spec again")
    return run


def settings_of(run: RunFolder) -> dict[str, Any]:
    """What was run, read as data: components that are gone, or changed, don't matter."""
    if not run.resolved.is_file():
        return {}
    tree = read(open_source(run.resolved))
    data = plain(tree) if tree is not None else {}
    return leaves(data) if isinstance(data, dict) else {}


def whereabouts(run: RunFolder) -> list[str]:
    """Settings with which the run's spec finds this folder, and the cache that was moved along with it."""
    root = run.path.parent.parent
    found = {"runtime.runs": root}
    settings = settings_of(run)
    runs, cache = (Path(str(settings.get(name, ""))) for name in ("runtime.runs", "runtime.cache"))
    inside = not runs.is_absolute() and root.parts[-len(runs.parts) :] == runs.parts
    if inside and settings.get("runtime.cache") and not cache.is_absolute():
        found["runtime.cache"] = root.parents[len(runs.parts) - 1] / cache
    return [f"{name}={json.dumps(str(path))}" for name, path in found.items()]
