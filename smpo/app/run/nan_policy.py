"""The updates of a run, and how it goes on after one that is broken (`runtime.on_nan`).

An update whose loss or gradient is not a number is never applied. `stop` ends the run; `skip` goes on with the next
update; `roll-back` returns to the last checkpoint and leaves out everything since, the broken update included: what has
gone wrong slowly can't be mended by leaving out its last step alone. That is how PaLM was trained through its spikes
(Chowdhery et al. 2022, arXiv:2204.02311, 5.1). Updates that were left out are listed in `left_out.json`; a resumed run
leaves them out again, so it ends where an uninterrupted one does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from smpo.app.run.context import RunContext
from smpo.app.run.nan_report import write_nan_report

if TYPE_CHECKING:
    from smpo.engine.monitoring.alerts import NonFiniteLoss
    from smpo.engine.monitoring.tracker import StepReport

__all__ = ["IN_A_ROW", "LEFT_OUT", "left_out", "updates"]

LEFT_OUT = "left_out.json"
IN_A_ROW = 3
"""Broken updates one after another that stop a run: pairs are drawn at random, so the cause isn't a few of them."""


def updates(run: RunContext, back: Callable[[], int]) -> Iterator[StepReport]:
    """`fit`, through broken updates. `back` restores the last checkpoint and returns the updates that it holds.

    Raises `NonFiniteLoss` when the spec wants to stop, when `runtime.nan_limit` is used up, and after `IN_A_ROW` broken
    updates one after another.
    """
    from smpo.engine.loop import fit
    from smpo.engine.monitoring.alerts import NonFiniteLoss

    session, start, known = run.live.session, run.start, left_out(run)
    session.skipped = {update - 1 for one in known for update in range(one["first"], one["last"] + 1)}
    while True:
        try:
            yield from fit(session, start)
            return
        except NonFiniteLoss as error:
            start = _go_on(run, error, known, back)


def left_out(run: RunContext) -> list[dict[str, Any]]:
    """What was left out so far, each with its `first` and `last` update, counted from 1."""
    file = run.folder.path / LEFT_OUT
    if not run.start or not file.exists():
        return []
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["updates"]
    return found


def _in_a_row(known: list[dict[str, Any]], update: int) -> int:
    """How many updates up to this broken one, counted from 1, are broken without one between them that isn't."""
    row = 1
    while row <= len(known) and known[-row]["last"] == update - row:
        row += 1
    return row


def _go_on(run: RunContext, error: NonFiniteLoss, known: list[dict[str, Any]], back: Callable[[], int]) -> int:
    """The update to go on from, counted from 0."""
    runtime, session, update = run.spec.runtime, run.live.session, error.step + 1
    if run.is_main:
        bundle = write_nan_report(run, error)
        error.help = f"its pairs, images and gradients are in {bundle}; {error.help}"
    session.discard_gradients()
    if runtime.on_nan == "stop":
        error.help = f"{error.help}; `--resume --set runtime.on_nan=skip` goes on without this update"
        raise error
    if len(known) >= runtime.nan_limit:
        error.help = f"that many were left out before: {len(known)} (`runtime.nan_limit`); {error.help}"
        raise error
    if (row := _in_a_row(known, update)) >= IN_A_ROW:
        error.help = f"{row} updates in a row are not finite, and leaving out more won't mend that; {error.help}"
        raise error
    first = back() + 1 if runtime.on_nan == "roll-back" else update
    known.append({"first": first, "last": update, "by": runtime.on_nan, "reason": error.reason})
    session.skipped |= set(range(first - 1, update))
    count = len(session.skipped)
    if run.is_main:
        run.folder.write_text(LEFT_OUT, json.dumps({"updates": known}, indent=1))
        run.tracker.metrics({"train/left_out": count}, update)
        which = f"update {update} is" if first == update else f"updates {first} to {update} are"
        run.console.warn(
            f"{error.reason}: {which} left out and the run goes on ({count} so far; {run.folder.path / 'autopsy.json'})"
        )
    return update
