"""Commands about pairs and what is computed from them once: data audit, score, cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smpo.cli.options import Cache, Json, Roots, Sets, Spec, TrustCode
from smpo.errors import MachineError

if TYPE_CHECKING:
    from smpo.data.audit import Audit, Crops
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved

__all__ = ["cache_clean", "cache_list", "cache_verify", "data_audit", "score"]

_COLOURS = {"lost": "red", "doubtful": "yellow", "plain": "dim"}


def data_audit(
    spec: Spec,
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where page and data go; default: under runs.")
    ] = None,
    no_score: Annotated[
        bool, typer.Option("--no-score", help="Compare with the reward only as far as its scores are cached.")
    ] = False,
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Find what is the matter with preference pairs before training on them."""
    from smpo.app.checks.data import audit_data
    from smpo.cli.output import print_json, print_line, resolve_spec
    from smpo.tracking.console import Console

    resolved = resolve_spec(spec, sets, roots=roots)
    with Console(quiet=json) as console:
        done = audit_data(resolved, console, score=not no_score, folder=folder)
    if json:
        print_json(done.audit.to_dict())
    else:
        _show_audit(done.audit)
        print_line(f"\npage       {done.page}\ndata       {done.data}")


def _show_audit(audit: Audit) -> None:
    """One screen: the numbers of rows and pairs, findings, and agreement with the reward."""
    from rich.markup import escape

    from smpo.cli.output import make_table, out

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


def score(
    spec: Spec,
    sets: Sets = None,
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="NAME", help="Another reward than the spec's.")
    ] = None,
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Score a spec's pairs with its reward; what is known isn't computed again."""
    from dataclasses import asdict

    from smpo.app.build.scores import score_data
    from smpo.cli.output import print_json, print_line, resolve_spec
    from smpo.tracking.console import Console

    sets = [*(sets or []), *([f"reward={reward}"] if reward else [])]
    resolved = resolve_spec(spec, sets, roots=roots)
    with Console(quiet=json) as console:
        done = score_data(resolved.spec, console)
    if json:
        print_json({**asdict(done), "file": str(done.file)})
        return
    stats = done.stats
    print_line(
        f"scores     {done.computed:,} computed, {done.wanted - done.computed:,} known before, of {done.wanted:,} "
        f"for {done.pairs:,} pairs ({done.seconds:.0f} s)"
    )
    print_line(f"range      {stats.low:.6g} to {stats.high:.6g}, mean {stats.mean:.6g} ± {stats.std:.3g}")
    for made in done.provenance:
        facts = ", ".join(f"{name} {made[name]}" for name in ("dtype", "device", "revision") if made.get(name))
        print_line(f"made       {done.reward}, {facts}, since {made['since']}")
    print_line(f"key        {done.key}")
    print_line(f"kept in    {done.file}")


def cache_list(
    place: Cache,
    sets: Sets = None,
    json: Json = False,
    trust_code: TrustCode = False,
) -> None:
    """What a cache holds, and how much of the disk."""
    from rich.markup import escape

    from smpo.app.plan.disk import in_gb
    from smpo.cli.output import make_table, out, print_json, print_line
    from smpo.data.cache.maintenance import entries, orphans

    folder, _ = _cache_folder(place, sets)
    stored, strays = entries(folder), orphans(folder)
    total = sum(entry.size for entry in stored)
    if json:
        rows = [{"kind": e.kind, "path": str(e.path), "key": e.key, "rows": e.rows, "bytes": e.size} for e in stored]
        print_json({"folder": str(folder), "entries": rows, "bytes": total, "strays": [str(s) for s in strays]})
        return
    if stored:
        table = make_table("kind", "rows", "size", "of", right=["rows", "size"])
        for entry in stored:
            table.add_row(entry.kind, f"{entry.rows:,}", in_gb(entry.size), escape(entry.key[:70]))
        out().print(table)
    print_line(f"{in_gb(total)} in {folder}")
    if strays:
        print_line(f"{len(strays):,} files that no index mentions: `smpo cache clean`")


def cache_verify(
    place: Cache,
    sets: Sets = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Discard what is damaged; with a spec, compute it again.")
    ] = False,
    json: Json = False,
    trust_code: TrustCode = False,
) -> None:
    """Compare every file of a cache with what was written. Exit code 1 when something is damaged."""
    from smpo.cli.output import print_json, print_line
    from smpo.data.cache.maintenance import discard, verify
    from smpo.tracking.console import Console

    folder, resolved = _cache_folder(place, sets)
    mended = False
    with Console(quiet=json) as console:
        damaged = list(verify(folder, console.progress))
        for entry in damaged if repair else ():
            discard(entry)
        if repair and damaged and resolved is not None:
            from smpo.app.build.build import build_run

            console.phase("computing again what was damaged")
            runtime = resolved.spec.runtime.model_copy(update={"prepare": "first"})
            spec = resolved.spec.model_copy(update={"runtime": runtime})
            build_run(spec, report=None, progress=console.progress, say=console.warn)
            mended = not list(verify(folder))
    if json:
        rows = [{"kind": d.kind, "path": str(d.path), "what": d.what, "rows": d.rows} for d in damaged]
        print_json({"folder": str(folder), "damaged": rows, "discarded": repair, "mended": mended})
    else:
        for entry in damaged:
            rows_lost = "" if entry.rows is None else f" ({entry.rows:,} rows)"
            print_line(f"damaged  {entry.path} {entry.what}{rows_lost}")
        if not damaged:
            print_line(f"everything in {folder} is what was written")
        elif mended:
            print_line("mended: what was damaged has been computed again")
        elif repair:
            print_line("discarded: the next run that needs it computes it again")
        else:
            print_line("`--repair` discards it, and with a spec computes it again")
    if damaged and not repair:
        raise typer.Exit(1)


def cache_clean(
    place: Cache,
    what: Annotated[
        list[str] | None,
        typer.Option("--what", metavar="KIND", help="latents, prompts, scores or pairs, whole. Repeatable."),
    ] = None,
    sets: Sets = None,
    json: Json = False,
    trust_code: TrustCode = False,
) -> None:
    """Delete what no index mentions (leftovers of killed writers), or whole kinds of entries."""
    from smpo.app.plan.disk import in_gb
    from smpo.cli.output import print_json, print_line
    from smpo.data.cache.maintenance import clean

    folder, _ = _cache_folder(place, sets)
    files, size = clean(folder, what or [])
    if json:
        print_json({"folder": str(folder), "files": files, "bytes": size})
    else:
        print_line(f"{files:,} files deleted, {in_gb(size)} free again")


def _cache_folder(place: str, sets: Sets) -> tuple[Path, Resolved[ExperimentSpec] | None]:
    """The cache that a spec uses, or the folder itself."""
    from smpo.cli.output import resolve_spec

    if Path(place).is_dir():
        return Path(place), None
    resolved = resolve_spec(place, sets)
    folder = Path(resolved.spec.runtime.cache)
    if not folder.is_dir():
        raise MachineError(f"nothing has been cached in {folder} yet", help="run or score a spec first")
    return folder, resolved
