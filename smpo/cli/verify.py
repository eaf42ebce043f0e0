"""`smpo verify` and `smpo rerun`: whether a result still holds, and whether it can be had again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from smpo.cli.output import out, print_json

if TYPE_CHECKING:
    from smpo.app.checks.rerun import Repetition
    from smpo.app.checks.verify import Verdict
    from smpo.evaluation.results.agreement import Agreement

__all__ = ["rerun_command", "verify_command"]


def verify_command(word: str, runs: Path, *, files_only: bool, limit: int | None, as_json: bool) -> None:
    """Check files, evaluate again, compare. Exit code 1 when something isn't as it was recorded."""
    from smpo.app.checks.verify import verify
    from smpo.cli.show import find_run
    from smpo.tracking.console import Console

    run = find_run(word, runs, finished=True)
    with Console(quiet=as_json) as console:
        verdict = verify(run, console.progress, files_only=files_only, limit=limit)
    if as_json:
        print_json(verdict.to_dict())
    else:
        _show_verdict(verdict)
    if not verdict.sound:
        raise typer.Exit(1)


def _show_verdict(verdict: Verdict) -> None:
    say = _printer()
    say(f"run        {verdict.run.path}")
    say(f"files      {verdict.files} hashed files, {verdict.checkpoints} checkpoints")
    for line in verdict.different:
        say(f"different  {line}")
    for one in verdict.judged:
        say(f"{one.judge:10} {_in_words(one)}")
    for line in verdict.notes:
        say(f"note       {line}")
    for line in verdict.faults:
        say(f"fault      {line}")
    if verdict.faults:
        count = len(verdict.faults)
        say(f"NOT CONFIRMED: {f'{count} things are' if count > 1 else 'one thing is'} not as recorded")
    elif verdict.judged:
        exactly = all(not one.differing["policy"] for one in verdict.judged)
        say("confirmed, bit for bit" if exactly else "confirmed within the recorded intervals")
    else:
        say("the files are as they were written")


def rerun_command(
    word: str, runs: Path, sets: list[str], *, anyway: bool, quiet: bool, as_json: bool, strict: bool
) -> None:
    """Run it again beside itself, and compare. Exit code 1 when a result lies outside the recorded interval."""
    from smpo.app.checks.rerun import rerun
    from smpo.cli.run import show_result
    from smpo.cli.show import find_run
    from smpo.tracking.console import Console

    run = find_run(word, runs, finished=True)
    with Console(quiet=quiet or as_json) as console:
        result, repetition = rerun(run, console, sets=sets, anyway=anyway)
    if as_json:
        print_json(repetition.to_dict())
    else:
        if not quiet:
            show_result(result, str(run.path.parent.parent))
        _show_repetition(repetition)
    if not (repetition.exact if strict else repetition.within):
        raise typer.Exit(1)


def _show_repetition(found: Repetition) -> None:
    say, curves = _printer(), found.curves
    say("")
    say(f"repeats    {found.before.path}")
    for line in found.different:
        say(f"different  {line}")
    if curves.differing:
        say(
            f"training   {curves.updates} updates; {curves.differing:,} of {curves.values:,} values differ, first at "
            f"update {curves.first}; the loss by up to {curves.largest:.2g}"
        )
    else:
        say(f"training   {curves.updates} updates, {curves.values:,} values: the same, bit for bit")
    if found.weights is not None:
        say(f"weights    {'the same, bit for bit' if found.weights else 'not the same'}")
    for one in found.judged:
        say(f"{one.judge:10} {_in_words(one)}")
    if not found.judged:
        state = found.before.summary()
        why = "has no evaluation" if state == "done" else f"is {state}, so it has no result"
        close = "the same but for rounding" if found.within else "NOT REPEATED: training is another"
        so = f"{'the same, bit for bit' if found.exact else close}, as far as it goes"
        say(f"{so}: the earlier run {why} to compare")
    elif found.exact:
        say("repeated, bit for bit")
    elif found.within:
        say("repeated within the recorded intervals")
    else:
        say("NOT REPEATED: a result lies outside the recorded interval")


def _in_words(one: Agreement) -> str:
    scores = f"{one.pictures:,} pictures"
    if one.bitwise:
        return f"{scores}: the same scores, bit for bit"
    changed = ", ".join(f"{count:,} of the {model}" for model, count in one.differing.items() if count)
    figures = ""
    if one.now.gain is not None and one.before.gain is not None and one.before.gain_low is not None:
        figures = (
            f"; gain {one.now.gain:+.4g}, recorded {one.before.gain:+.4g} "
            f"[{one.before.gain_low:+.4g}, {one.before.gain_high:+.4g}]"
        )
    place = "within" if one.within else "OUTSIDE"
    return f"{scores}: scores differ ({changed}) by up to {one.largest:.2g}{figures}: {place} the interval"


def _printer() -> Callable[[str], None]:
    console = out()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    return say
