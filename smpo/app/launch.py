"""Runs of several processes: the parent opens the run's folder and starts torchrun; children train.

The parent never imports torch. Children get the *resolved* spec, so that no process resolves anything again. `smpo run`
starts its processes itself, on one machine; started under `torchrun` or `accelerate launch` it doesn't join them yet.
"""

from __future__ import annotations

import os
import signal
import subprocess  # noqa: S404, RUF100
import sys
from pathlib import Path

from smpo.app.plan import Plan
from smpo.app.record import describe
from smpo.app.run import work
from smpo.app.watchers import Console
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved, resolve
from smpo.runs.store import RunFolder, open_run

__all__ = ["launch", "worker"]


def launch(
    resolved: Resolved[ExperimentSpec],
    plan: Plan,
    console: Console,
    *,
    again: bool = False,
    resume: bool = False,
) -> Path:
    """Run on `runtime.devices` processes and wait. The folder is held by this process, which outlives the others."""
    spec = resolved.spec
    folder = open_run(
        Path(spec.runtime.runs), spec.name, resolved.identity.spec_hash, again=again, resume=resume
    )
    with folder:
        describe(folder, resolved, plan)
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(spec.runtime.devices)),
            *("-m", "smpo.app.launch", str(folder.path)),
        ]
        console.note(f"starting {spec.runtime.devices} processes")
        environment = {**os.environ, "OMP_NUM_THREADS": str(spec.runtime.threads or 1)}
        code = _wait(subprocess.Popen(command, env=environment))  # noqa: S603
        ending = folder.path / "ending.txt"
        said = ending.read_text(encoding="utf-8").strip() if ending.exists() else ""
        if said == "stopped":
            raise KeyboardInterrupt
        if code or said != "done":
            raise RunError(
                f"a process of the run ended with status {code}: {said or 'see its message above'}",
                help="mend the cause and go on with `--resume`",
            )
    return folder.path


def worker(path: Path) -> None:
    """One of the processes. The folder's lock is the parent's; the main process writes how it ended."""
    from smpo.tracking.console import Console as Terminal

    main = int(os.environ.get("RANK", "0")) == 0
    resolved = resolve(path / "resolved.yaml", skeleton=ExperimentSpec)
    folder = RunFolder(path, resumed=any((path / "checkpoints").glob("step-*")))
    ending = path / "ending.txt"
    if main:
        ending.unlink(missing_ok=True)
    try:
        with Terminal(quiet=not main) as console:
            work(resolved, folder, console, main=main)
            _leave()
    except KeyboardInterrupt:
        _say(ending, "stopped", main=main)
    except Exception as error:
        _say(ending, f"{type(error).__name__}: {error}", main=True)
        raise
    else:
        _say(ending, "done", main=main)


def _leave() -> None:
    """Say good-bye to the other processes: one that just ends while they still work may be aborted by its threads."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _say(ending: Path, words: str, *, main: bool) -> None:
    if main:
        ending.write_text(words, encoding="utf-8")


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Until it ends. Ctrl-C reaches the children by themselves; SIGTERM is passed on. Neither ends the waiting."""
    earlier = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        return process.wait()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record

    record(worker)(Path(sys.argv[1]))
