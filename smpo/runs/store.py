"""Run folders: `<root>/<name>/<spec hash>-<attempt>/`, one for each time an experiment is run.

The folder's name is the run's identity, so whether something was run before is a look at the disk.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

from filelock import FileLock

from smpo.errors import RunError
from smpo.runs.folder import RunFolder, State, Status

__all__ = [
    "RunExists",
    "RunFolder",
    "RunInterrupted",
    "RunLive",
    "State",
    "Status",
    "find_runs",
    "is_run",
    "open_run",
]

_FOLDER = re.compile(r"(?P<spec>[0-9a-f]{6,64})-(?P<attempt>[1-9][0-9]*)")


class _RunTaken(RunError):
    """There is a run of this identity in `folder`, and the folder can't simply be used."""

    def __init__(self, message: str, *, folder: Path, help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.folder = folder


class RunExists(_RunTaken):
    """This identity was run to its end."""


class RunInterrupted(_RunTaken):
    """This identity was begun and not finished: it can be resumed, or begun again."""


class RunLive(_RunTaken):
    """This identity is running right now, in another process."""


def is_run(path: Path) -> bool:
    """Whether this is a run's folder, and not that of another program that has a `status.json`."""
    run = RunFolder(path)
    named = _FOLDER.fullmatch(run.path.name) is not None
    return (run.path / "status.json").is_file() and (named or run.resolved.is_file() or run.spec.is_file())


def find_runs(root: Path, name: str | None = None, spec_hash: str | None = None) -> list[RunFolder]:
    """Runs under `root`, oldest first. `spec_hash` may be the beginning of a hash, or `<hash>-<attempt>`."""
    experiments = [root / name] if name is not None else sorted(path for path in root.glob("*") if path.is_dir())
    found = [
        RunFolder(path)
        for experiment in experiments
        for path in experiment.glob("*-*")
        if path.is_dir() and _FOLDER.fullmatch(path.name) and path.name.startswith(spec_hash or "")
    ]
    return sorted(found, key=lambda run: (run.status().started or run.path.stat().st_mtime, run.attempt))


def open_run(root: Path, name: str, spec_hash: str, *, again: bool = False, resume: bool = False) -> RunFolder:
    """The folder for running this identity now, locked, with a status of `running`.

    The first run of an identity gets attempt 1, and so does `resume` where there is nothing to resume (a job
    that is requeued can always pass it). After that, its latest attempt decides: one that is finished raises
    `RunExists`, an interrupted one `RunInterrupted`, one that is running `RunLive`. `resume` goes on with an
    interrupted one; `again` makes another attempt whatever there is.
    """
    experiment = root / name
    experiment.mkdir(parents=True, exist_ok=True)
    # Looking and taking is one act: two processes that are started together must not get one folder.
    with FileLock(experiment / ".opening.lock", timeout=60):
        attempts = [run for run in find_runs(root, name, f"{spec_hash}-") if run.spec_hash == spec_hash]
        latest = max(attempts, key=lambda run: run.attempt, default=None)
        if latest is None or again:
            return _take(experiment / f"{spec_hash}-{latest.attempt + 1 if latest else 1}", resumed=False)
        _refuse(latest, resume=resume)
        return _take(latest.path, resumed=True)


def _take(path: Path, *, resumed: bool) -> RunFolder:
    path.mkdir(exist_ok=resumed)
    lock = FileLock(path / ".lock")
    lock.acquire(blocking=False)
    run = RunFolder(path, lock=lock, resumed=resumed)
    for folder in (run.checkpoints, run.samples):  # `model` appears when there is one
        folder.mkdir(exist_ok=True)
    run.begin()
    return run


def _refuse(run: RunFolder, *, resume: bool) -> None:
    """Raise the reason why this run isn't to be continued, if there is one."""
    status = run.status()
    if run.is_live():
        who = f"process {status.pid} on {status.host}" if status.host else "another process"
        raise RunLive(
            f"this experiment is running now: {run.path} ({who}, step {status.step})",
            folder=run.path,
            help="wait for it, or start another attempt with `--again`",
        )
    if status.state == "done":
        raise RunExists(
            f"this experiment was run before: {run.path}",
            folder=run.path,
            help=f"look at it with `smpo show {quote(str(run.path))}`, or make another attempt with `--again`",
        )
    if not resume:
        how = {"failed": "failed", "stopped": "was stopped", "pruned": "was pruned"}.get(
            status.state, "was interrupted"
        )
        because = f" ({status.message})" if status.message else ""
        raise RunInterrupted(
            f"this experiment was begun before and {how} at step {status.step}{because}: {run.path}",
            folder=run.path,
            help="go on with `--resume`, or begin another attempt with `--again`",
        )
