"""`smpo measure`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from smpo.cli.output import out, print_json, resolve_spec

__all__ = ["rho_command"]


def rho_command(
    spec: str, sets: Sequence[str], *, pairs: int, levels: int, as_json: bool, roots: Sequence[Path] | None,
    no_local_code: bool,
) -> None:  # fmt: skip
    from rich.markup import escape
    from rich.table import Table

    from smpo.app.checks.gradient_correlation import measure_rho, settings_for
    from smpo.tracking.console import Console

    resolved = resolve_spec(spec, [*sets, *settings_for(pairs)], roots=roots, no_local_code=no_local_code)
    with Console(quiet=as_json) as console:
        found = measure_rho(resolved.spec, levels, console)
    one = found.resemblance
    if as_json:
        print_json({**asdict(one), "choices": [asdict(choice) for choice in found.choices]})
        return
    screen = out()
    screen.print(
        f"rho        {one.rho:.3f} [{one.low:.3f}, {one.high:.3f}], correlation of a pair's gradients at two timesteps"
        f" ({one.pairs} pairs × {one.levels} timesteps)"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("timesteps_per_pair", "passes a loss", "cheaper", "gain at equal variance", ""):
        table.add_column(title, justify="right")
    for choice in found.choices:
        table.add_row(
            str(choice.timesteps),
            f"{choice.passes:.1f}",
            f"{choice.raw:.2f}×",
            f"{choice.gain:.2f}×",
            escape(f"[{choice.low:.2f}, {choice.high:.2f}]"),
        )
    screen.print(table)
    best = found.best
    if best.timesteps == 1 or best.low < 1:
        screen.print("advice     leave `train.timesteps_per_pair` at 1: more doesn't surely pay")
    else:
        screen.print(f"advice     `train.timesteps_per_pair: {best.timesteps}`")
