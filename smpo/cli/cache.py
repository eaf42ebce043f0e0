"""`smpo cache`: what runs have computed and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from smpo.app.plan.disk import in_gb
from smpo.cli.output import out, print_json, resolve_spec
from smpo.errors import MachineError

if TYPE_CHECKING:
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved

__all__ = ["clean_command", "list_command", "verify_command"]


def list_command(place: str, sets: Sequence[str], *, as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from smpo.data.cache.maintenance import entries, orphans

    folder, _ = _folder(place, sets)
    found, left = entries(folder), orphans(folder)
    total = sum(one.size for one in found)
    if as_json:
        listed = [
            {"kind": one.kind, "path": str(one.path), "key": one.key, "rows": one.rows, "bytes": one.size}
            for one in found
        ]
        print_json({"folder": str(folder), "entries": listed, "bytes": total, "strays": [str(s) for s in left]})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("kind", "rows", "size", "of"):
        table.add_column(title, justify="right" if title in ("rows", "size") else "left", overflow="ellipsis")
    for one in found:
        table.add_row(one.kind, f"{one.rows:,}", in_gb(one.size), escape(one.key[:70]))
    console = out()
    if found:
        console.print(table)
    console.print(f"{in_gb(total)} in {folder}", markup=False, soft_wrap=True)
    if left:
        console.print(f"{len(left):,} files that no index mentions: `smpo cache clean`", markup=False)


def verify_command(place: str, sets: Sequence[str], *, repair: bool, as_json: bool) -> None:
    from smpo.data.cache.maintenance import discard, verify
    from smpo.tracking.console import Console

    folder, resolved = _folder(place, sets)
    with Console(quiet=as_json) as progress:
        found = list(verify(folder, progress.progress))
        if repair:
            for one in found:
                discard(one)
        mended = bool(repair and found and resolved is not None)
        if mended:
            assert resolved is not None
            from smpo.app.build.build import build_run

            progress.phase("computing again what was damaged")
            runtime = resolved.spec.runtime.model_copy(update={"prepare": "first"})
            spec = resolved.spec.model_copy(update={"runtime": runtime})
            build_run(spec, report=None, progress=progress.progress, say=progress.warn)
            mended = not list(verify(folder))
    if as_json:
        listed = [{"kind": d.kind, "path": str(d.path), "what": d.what, "rows": d.rows} for d in found]
        print_json({"folder": str(folder), "damaged": listed, "discarded": repair, "mended": mended})
    else:
        console = out()
        for one in found:
            rows = "" if one.rows is None else f" ({one.rows:,} rows)"
            console.print(f"damaged  {one.path} {one.what}{rows}", markup=False, soft_wrap=True)
        if not found:
            console.print(f"everything in {folder} is what was written", markup=False, soft_wrap=True)
        elif mended:
            console.print("mended: what was damaged has been computed again")
        elif repair:
            console.print("discarded: the next run that needs it computes it again")
        else:
            console.print("`--repair` discards it, and with a spec computes it again", markup=False)
    if found and not repair:
        raise typer.Exit(1)


def clean_command(place: str, sets: Sequence[str], *, what: Sequence[str], as_json: bool) -> None:
    from smpo.data.cache.maintenance import clean

    folder, _ = _folder(place, sets)
    files, size = clean(folder, list(what))
    if as_json:
        print_json({"folder": str(folder), "files": files, "bytes": size})
    else:
        out().print(f"{files:,} files deleted, {in_gb(size)} free again")


def _folder(place: str, sets: Sequence[str]) -> tuple[Path, Resolved[ExperimentSpec] | None]:
    """The cache that a spec uses, or the folder itself."""
    if Path(place).is_dir():
        return Path(place), None
    resolved = resolve_spec(place, sets)
    folder = Path(resolved.spec.runtime.cache)
    if not folder.is_dir():
        raise MachineError(f"nothing has been cached in {folder} yet", help="run or score a spec first")
    return folder, resolved
