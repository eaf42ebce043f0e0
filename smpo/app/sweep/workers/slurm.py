"""`smpo sweep --workers N --on slurm`: the same command on N machines, submitted as an array through submitit.

A worker is an ordinary `smpo sweep` on the study that all share. When Slurm is about to take its machine away, its
trials write checkpoints and go back to the study, and it is queued again.

submitit keeps what it runs as pickles in the study's folder (`cluster/`): our own command, written and read by the same
user. It is an extra (`smpo[cluster]`), and `sbatch` with the script in docs/sweeps.md does the same.
"""

from __future__ import annotations

import shutil
import subprocess  # noqa: S404, RUF100
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from smpo.errors import MachineError, RunError

__all__ = ["Engine", "Worker", "submit", "worker_command"]

Engine = Literal["slurm", "local"]
_GRACE = 60.0
"""Seconds in which a worker that has to leave may end its trials."""


class Worker:
    """One `smpo sweep`, as submitit runs it; `checkpoint` is called when the machine is about to be taken away."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = list(command), str(folder)
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        self._child = subprocess.Popen(self._command, cwd=self._folder)  # noqa: S603
        code = self._child.wait()
        if code:
            raise RuntimeError(f"the worker ended with status {code}; its words are above")
        return code

    def checkpoint(self) -> Any:
        """Stop the worker, and queue the same one again."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return DelayedSubmission(Worker(self._command, Path(self._folder)))


def worker_command(words: Sequence[str]) -> list[str]:
    """`smpo WORDS` by this interpreter, which the machines of a cluster share."""
    return [sys.executable, "-c", "from smpo.cli.main import main; main()", *words]


def submit(
    command: Sequence[str], *, workers: int, on: Engine, folder: Path, name: str, options: Mapping[str, str]
) -> list[str]:
    """Submit so many workers; returns their job ids. `options` are the engine's: `partition`, `time`, `gpus_per_node`…

    Raises `MachineError` where submitit or Slurm is missing, `RunError` for what Slurm refuses.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError as error:
        raise MachineError("clusters need submitit", help="`pip install 'smpo[cluster]'`") from error
    if on == "slurm" and shutil.which("sbatch") is None:
        raise MachineError("there is no Slurm here: `sbatch` isn't found", help="run this where jobs are submitted")
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=folder, cluster=on, **_patience(on))
    try:
        executor.update_parameters(name=name[:80], **_parameters(on, options))
        with executor.batch():
            jobs = [executor.submit(Worker(command, Path.cwd())) for _ in range(workers)]
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise RunError(f"{on} doesn't take these options: {error}") from error
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError, OSError) as error:
        raise RunError(
            f"{on} refused: {str(error).strip() or error!r}", help="options are `-o partition=gpu`"
        ) from error
    return [str(job.job_id) for job in jobs]


def _patience(on: Engine) -> dict[str, Any]:
    """A worker may be queued again as often as it takes: the study knows when there are enough trials."""
    return {"slurm_max_num_timeout": 1000} if on == "slurm" else {"local_max_num_timeout": 1000}


def _parameters(on: Engine, options: Mapping[str, str]) -> dict[str, Any]:
    """What submitit knows under its own name, everything else as `#SBATCH --key=value`."""
    if on == "local":
        unknown = set(options) - {"time"}
        if unknown:
            raise RunError(f"`{min(unknown)}` is an option of Slurm, and this is `--on local`")
        return {"timeout_min": _minutes(options.get("time", "24h"))}
    from submitit.slurm.slurm import SlurmExecutor

    known = set(SlurmExecutor._valid_parameters()) - {"additional_parameters", "setup", "srun_args"}
    found: dict[str, Any] = {"slurm_time": _minutes(options.get("time", "24h")), "slurm_signal_delay_s": 120}
    others: dict[str, str] = {}
    for key, value in options.items():
        key = key.replace("-", "_")
        if key == "time":
            continue
        if key in known:
            found[f"slurm_{key}"] = int(value) if value.isdigit() else value
        else:
            others[key] = value
    return found | ({"slurm_additional_parameters": others} if others else {})


def _minutes(text: str) -> int:
    """`90` (minutes, as Slurm reads it), `12h`, `1h30m` -> minutes."""
    if text.isdigit():
        return int(text)
    hours, _, rest = text.rpartition("h") if "h" in text else ("0", "", text)
    rest = rest.removesuffix("m") or "0"
    if not (hours.isdigit() and rest.isdigit()):
        raise RunError(f"`time={text}` is not a time", help="write it as 90 (minutes), 12h or 1h30m")
    return int(hours) * 60 + int(rest)
