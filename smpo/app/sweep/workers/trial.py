"""One trial of a sweep, in a process of its own: an ordinary run that answers to the sweep at rungs.

The sweep writes an order (JSON) and starts `python -m smpo.app.sweep.workers.trial ORDER`; the trial writes its
state beside it. Whatever happens here can't hurt the sweep: no crash, no full memory, no broken device.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.app.sweep.workers.messages import TrialJob, read_json, rung_file, verdict_file, write_json

if TYPE_CHECKING:
    from smpo.app.build.live import LiveRun
    from smpo.app.run.holdout import HoldoutMonitor
    from smpo.engine.monitoring.tracker import Tracker
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved
    from smpo.runs.store import RunFolder

__all__ = ["perform"]

PATIENCE = 120.0
"""Seconds that a trial waits for a verdict before it goes on by itself."""


def perform(path: Path) -> int:
    """Carry out the order in a file; returns the exit code. The answer file has the details."""
    order = TrialJob(**json.loads(path.read_text(encoding="utf-8")))
    _die_with(os.getppid())
    try:
        return _perform(order)
    except KeyboardInterrupt:
        _answer(order, "stopped", "interrupted")
        return 130
    except BaseException as error:
        _answer(order, *_named(error))
        code: int | None = getattr(error, "exit_code", None)
        if code:
            sys.stderr.write(f"error: {error}\n")
        else:
            traceback.print_exc()
        return code or 1


def _perform(order: TrialJob) -> int:
    from smpo.app.plan.plan import make_plan
    from smpo.app.run.run import run
    from smpo.app.run.trial_hook import Pruned
    from smpo.errors import MachineError, RunError
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve
    from smpo.runs.store import RunExists, RunLive
    from smpo.tracking.console import Console

    resolved = resolve(
        Path(order.spec),
        skeleton=ExperimentSpec,
        sets=order.sets,
        trial=order.trial,
        extra_roots=[Path(root) for root in order.roots],
    )
    if resolved.identity.spec_hash != order.spec_hash:
        raise RunError("the spec, or code that it uses, was changed after the sweep had begun")
    plan = make_plan(resolved)
    if plan.missing:
        lack = plan.missing[0]
        raise MachineError(f"{lack.where}: {lack.message}", help=lack.help)
    overseer = _Overseer(order)
    with Console(terminal=False, every=30.0) as console:
        try:
            run(resolved, plan, console, resume=True, overseer=overseer)
        except RunExists as known:
            _answer(order, "reused", "was run before", known.folder)
        except RunLive as known:
            _answer(order, "live", "is being run by another process", known.folder)
        except Pruned as error:
            _answer(order, "pruned", error.message, overseer.folder)
        else:
            _answer(order, "done", "", overseer.folder)
    return 0


class _Overseer:
    """The sweep's side of a run: reports its folder, evaluates cheaply at rungs, and waits there for a verdict."""

    def __init__(self, order: TrialJob) -> None:
        self.parent = order.parent
        self.tags: Mapping[str, str] = order.tags
        self.folder: Path | None = None
        self._order = order

    def on_run_start(self, folder: RunFolder) -> None:
        self.folder = folder.path
        _answer(self._order, "running", "", folder.path)

    def should_prune(
        self,
        step: int,
        resolved: Resolved[ExperimentSpec],
        live: LiveRun,
        tracker: Tracker,
        look: HoldoutMonitor | None,
    ) -> str | None:
        assert self.folder is not None
        if step in self._order.rungs:
            figures, scores = self._evaluate(resolved, live) if self._order.rung_prompts != 0 else ({}, {})
            fresh = dict(figures)
            if look is not None:
                held_out = {f"holdout/{name}": value for name, value in look.metrics(step).items()}
                figures |= held_out
                scores["holdout"] = look.margins(step)
                if not look.due(step):  # training has reported them otherwise: a point is reported once
                    fresh |= held_out
            if fresh:
                tracker.metrics(fresh, step)
            write_json(rung_file(self.folder, step), {"step": step, "figures": figures, "scores": scores})
            return self._verdict(step)
        asked = self.folder / "prune.txt"
        if asked.exists():
            reason = asked.read_text(encoding="utf-8")
            asked.unlink()
            return reason
        return None

    def _evaluate(
        self, resolved: Resolved[ExperimentSpec], live: LiveRun
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """`(figures, gains by judge)`, with few prompts and few sampling steps."""
        from smpo.app.evaluate.evaluate import evaluate_run

        cheaper = {"limit": self._order.rung_prompts, "steps": self._order.rung_steps}
        with live.session.average.swapped() if live.session.average else nullcontext():
            evaluation = evaluate_run(
                resolved, live, lambda *_: None, **{k: v for k, v in cheaper.items() if v is not None}
            )
        figures = {f"rung/{name.removeprefix('eval/')}": v for name, v in evaluation.metrics().items()}
        return figures, {judgement.name: judgement.gains.tolist() for judgement in evaluation.judgements}

    def _verdict(self, step: int) -> str | None:
        assert self.folder is not None
        file, until = verdict_file(self.folder, step), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if verdict := read_json(file):
                return None if verdict["go"] else str(verdict["reason"])
            time.sleep(0.02)
        return None


def _answer(order: TrialJob, state: str, message: str = "", folder: Path | None = None) -> None:
    known = read_json(Path(order.answer))
    where = str(folder) if folder is not None else known.get("folder")
    write_json(Path(order.answer), {"state": state, "message": message, "folder": where})


def _named(error: BaseException) -> tuple[str, str]:
    """What happened, in a word and in a line."""
    from smpo.errors import SmpoError
    from smpo.sweep.storage import first_line

    kind, line = type(error).__name__, first_line(error)
    if kind == "NonFiniteLoss":
        return "diverged", line
    if isinstance(error, MemoryError) or kind in ("OutOfMemoryError", "OutOfMemory"):
        return "out of memory", line
    if isinstance(error, SmpoError):
        return "refused" if error.exit_code in (2, 3) else "crashed", line
    return "crashed", f"{kind}: {line}"


def _die_with(parent: int) -> None:
    """A trial whose sweep is gone writes its checkpoint and ends: its settings will be tried again by another."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        os._exit(1)

    threading.Thread(target=watch, name="watch the sweep", daemon=True).start()


if __name__ == "__main__":
    sys.exit(perform(Path(sys.argv[1])))
