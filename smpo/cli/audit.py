"""The screen of `smpo data audit`: what a spec would train on, and its findings."""

from __future__ import annotations

from rich.markup import escape

from smpo.cli.output import make_table, out
from smpo.data.audit import Audit, Crops

__all__ = ["show_audit"]

_COLOURS = {"lost": "red", "doubtful": "yellow", "plain": "dim"}


def show_audit(audit: Audit) -> None:
    """One screen: the numbers of rows and pairs, findings, and agreement with the reward."""
    console, facts = out(), audit.facts
    console.print(
        f"\n{facts['rows']:,} rows, {facts['sound_rows']:,} of them sound: {facts['pairs']:,} pairs with "
        f"{facts['votes']:,} votes, {facts['prompts']:,} prompts, {facts['images']:,} images\n"
    )
    if audit.findings:
        table = make_table("", "how many", "of", " ", right=["how many", "of"])
        for finding in audit.findings:
            weight = f"[{_COLOURS[finding.weight]}]{finding.weight}[/]"
            table.add_row(escape(finding.title), f"{finding.count:,}", f"{finding.of:,} {finding.unit}", weight)
        console.print(table)
    else:
        console.print("nothing is the matter: every row is sound, and none is doubtful")
    if audit.margins is not None:
        m = audit.margins
        quarters = ", ".join(f"{share:.0%}" for share in m.by_size)
        console.print(
            f"\nreward     {escape(m.reward)} agrees with {m.agreement:.1%} [{m.low:.1%}, {m.high:.1%}] of {m.pairs:,} "
            f"labels; by quarters of its margin, smallest first: {quarters}",
            highlight=False,
        )
        console.print(f"scores     {m.score_low:.4g} to {m.score_high:.4g}", highlight=False)
    if audit.noise["error"] is not None:
        console.print(
            f"noise      one vote is wrong with probability {audit.noise['error']:.1%}, if the "
            f"{audit.noise['pairs']:,} pairs with several votes speak for all"
        )
    if audit.crops is not None:
        console.print(_cut(audit.crops), highlight=False)
    for note in audit.notes:
        console.print(f"[dim]note       {escape(note)}[/]")


def _cut(crops: Crops) -> str:
    """What squares lose, and what buckets would save or do."""
    squares = f"crop       squares lose {crops.lost_as_square:.1%} of an image on average; "
    if not crops.used and crops.lost > crops.lost_as_square - 0.005:
        return f"{squares}no sizes of `data.buckets: {{}}` suit them better"
    meant = "`data.buckets`" if crops.used else "`data.buckets: {}`, which the spec doesn't ask for"
    return f"{squares}{meant}: {crops.lost:.1%}, in {len(crops.buckets)} sizes"
