"""`smpo data audit`, `smpo score` and `smpo cache`: what is trained on, and what was computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.cli.output import out, print_json, resolve_spec

if TYPE_CHECKING:
    from rich.table import Table

    from smpo.data.audit import Audit, Crops

__all__ = ["audit_command", "score_command"]

_COLOURS = {"lost": "red", "doubtful": "yellow", "plain": "dim"}


def audit_command(
    spec: str, sets: Sequence[str], *, folder: Path | None, score: bool, as_json: bool, roots: Sequence[Path] | None,
    no_local_code: bool,
) -> None:  # fmt: skip
    from smpo.app.checks.data import audit_data
    from smpo.tracking.console import Console

    resolved = resolve_spec(spec, sets, roots=roots, no_local_code=no_local_code)
    with Console(quiet=as_json) as console:
        done = audit_data(resolved, console, score=score, folder=folder)
    if as_json:
        print_json(done.audit.to_dict())
        return
    show_audit(done.audit)
    out().print(f"\npage       {done.page}\ndata       {done.data}", soft_wrap=True, markup=False)


def show_audit(audit: Audit) -> None:
    """One screen: what there is, what is the matter, what the reward thinks."""
    from rich.markup import escape

    console, facts = out(), audit.facts
    console.print(
        f"\n{facts['rows']:,} rows, {facts['sound_rows']:,} of them sound: {facts['pairs']:,} pairs with "
        f"{facts['votes']:,} votes, {facts['prompts']:,} prompts, {facts['images']:,} images\n"
    )
    if audit.findings:
        console.print(_findings(audit))
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


def _findings(audit: Audit) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title, side in (("", "left"), ("how many", "right"), ("of", "right"), ("", "left")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    for one in audit.findings:
        colour = _COLOURS[one.weight]
        table.add_row(escape(one.title), f"{one.count:,}", f"{one.of:,} {one.unit}", f"[{colour}]{one.weight}[/]")
    return table


def score_command(
    spec: str, sets: Sequence[str], *, reward: str | None, as_json: bool, roots: Sequence[Path] | None,
    no_local_code: bool,
) -> None:  # fmt: skip
    from smpo.app.build.scores import score_data
    from smpo.tracking.console import Console

    chosen = [*sets, *([f"reward={reward}"] if reward else [])]
    resolved = resolve_spec(spec, chosen, roots=roots, no_local_code=no_local_code)
    with Console(quiet=as_json) as console:
        done = score_data(resolved.spec, console)
    if as_json:
        print_json({**asdict(done), "file": str(done.file)})
        return
    console_, stats = out(), done.stats
    known = done.wanted - done.computed
    console_.print(
        f"scores     {done.computed:,} computed, {known:,} known before, of {done.wanted:,} for {done.pairs:,} pairs "
        f"({done.seconds:.0f} s)"
    )
    console_.print(f"range      {stats.low:.6g} to {stats.high:.6g}, mean {stats.mean:.6g} ± {stats.std:.3g}")
    for made in done.provenance:
        told = ", ".join(f"{name} {made[name]}" for name in ("dtype", "device", "revision") if made.get(name))
        console_.print(f"made       {done.reward}, {told}, since {made['since']}", markup=False)
    console_.print(f"key        {done.key}", markup=False, soft_wrap=True)
    console_.print(f"kept in    {done.file}", markup=False, soft_wrap=True)
