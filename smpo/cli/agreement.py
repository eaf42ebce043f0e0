"""The text of `smpo verify` and `smpo rerun`: whether a result holds, and whether it was repeated."""

from __future__ import annotations

from smpo.app.checks.rerun import Repetition
from smpo.app.checks.verify import Verdict
from smpo.cli.output import print_line
from smpo.evaluation.results.agreement import Agreement

__all__ = ["show_repetition", "show_verdict"]


def show_verdict(verdict: Verdict) -> None:
    print_line(f"run        {verdict.run.path}")
    print_line(f"files      {verdict.files} hashed files, {verdict.checkpoints} checkpoints")
    for line in verdict.different:
        print_line(f"different  {line}")
    for one in verdict.judged:
        print_line(f"{one.judge:10} {_in_words(one)}")
    for line in verdict.notes:
        print_line(f"note       {line}")
    for line in verdict.faults:
        print_line(f"fault      {line}")
    if verdict.faults:
        count = len(verdict.faults)
        print_line(f"NOT CONFIRMED: {f'{count} things are' if count > 1 else 'one thing is'} not as recorded")
    elif verdict.judged:
        exactly = all(not one.differing["policy"] for one in verdict.judged)
        print_line("confirmed, bit for bit" if exactly else "confirmed within the recorded intervals")
    else:
        print_line("the files are as they were written")


def show_repetition(repetition: Repetition) -> None:
    curves = repetition.curves
    print_line("")
    print_line(f"repeats    {repetition.before.path}")
    for line in repetition.different:
        print_line(f"different  {line}")
    if curves.differing:
        print_line(
            f"training   {curves.updates} updates; {curves.differing:,} of {curves.values:,} values differ, first at "
            f"update {curves.first}; the loss by up to {curves.largest:.2g}"
        )
    else:
        print_line(f"training   {curves.updates} updates, {curves.values:,} values: the same, bit for bit")
    if repetition.weights is not None:
        print_line(f"weights    {'the same, bit for bit' if repetition.weights else 'not the same'}")
    for one in repetition.judged:
        print_line(f"{one.judge:10} {_in_words(one)}")
    if not repetition.judged:
        state = repetition.before.summary()
        reason = "has no evaluation" if state == "done" else f"is {state}, so it has no result"
        close = "the same but for rounding" if repetition.within else "NOT REPEATED: training is another"
        same = "the same, bit for bit" if repetition.exact else close
        print_line(f"{same}, as far as it goes: the earlier run {reason} to compare")
    elif repetition.exact:
        print_line("repeated, bit for bit")
    elif repetition.within:
        print_line("repeated within the recorded intervals")
    else:
        print_line("NOT REPEATED: a result lies outside the recorded interval")


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
