"""Commands about any models: eval and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smpo.cli.options import ComparisonSpec, Json, Models, Quiet, Roots, Runs, Sets, TrustCode
from smpo.errors import RunError

if TYPE_CHECKING:
    from smpo.app.evaluate.compare import PreparedComparison

__all__ = ["compare", "evaluate"]

_WIDEST = 14
"""Columns of a table by category that a terminal still shows; more are in the files."""


def evaluate(
    models: Models,
    spec: ComparisonSpec = None,
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the table goes; default: under the runs.")
    ] = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Compare any models with their base: the same prompts and seeds, every judge, intervals."""
    import hashlib
    from json import dumps

    from smpo.cli.output import print_json
    from smpo.evaluation.report.comparison_text import markdown

    prepared = _compare(models, spec, sets, runs, roots, quiet=quiet or json)
    contest = prepared.contest
    data = contest.to_dict()
    identity = dumps([data["settings"], list(contest.models), contest.prompt_set, len(contest.prompts)])
    place = folder or runs / "evaluations" / hashlib.sha256(identity.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    (place / "contest.json").write_text(dumps(data, indent=1) + "\n", encoding="utf-8")
    (place / "contest.md").write_text(markdown(contest), encoding="utf-8")
    if json:
        print_json({key: value for key, value in data.items() if key != "scores"})
    else:
        _show(prepared, place)


def compare(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL...]", help="As for `smpo eval`.")] = None,
    spec: ComparisonSpec = None,
    sets: Sets = None,
    page: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("compare.html"),
    prompts: Annotated[int, typer.Option(min=1, help="Prompts whose pictures are on the page.")] = 60,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Convert votes that were downloaded from a page.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where they go, as parquet.")] = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Look at models side by side, or vote blindly: one HTML file that needs nothing else."""
    from smpo.app.evaluate.page import convert_votes, write_page
    from smpo.cli.output import out, print_line

    if votes is not None:
        target = to or votes.with_suffix(".parquet")
        count = convert_votes(votes, target)
        print_line(f"{count} votes in {target}; train on them with `data: {{use: pickapic, path: {target}}}`")
        return
    if not models:
        raise RunError("compare what?", help="name runs or models: `smpo compare RUN RUN`")
    file = write_page(_compare(models, spec, sets, runs, roots, quiet=quiet), page, prompts=prompts)
    size = file.stat().st_size / 2**20
    out().print(f"page       {file} ({size:.1f} MiB, complete in itself: open it in a browser)", soft_wrap=True)


def _compare(
    names: Sequence[str],
    spec: str | None,
    sets: Sequence[str] | None,
    runs: Path,
    roots: Sequence[Path] | None,
    *,
    quiet: bool,
) -> PreparedComparison:
    """The models of these names, evaluated; pictures and scores that are known aren't computed again."""
    from smpo.app.evaluate.compare import compare_models
    from smpo.app.evaluate.models import find_models, spec_of
    from smpo.cli.output import resolve_spec
    from smpo.tracking.console import Console

    models = find_models(names, runs)
    resolved = resolve_spec(str(spec_of(models)) if spec is None else spec, sets, roots=roots)
    with Console(quiet=quiet) as console:
        console.phase(f"{len(models)} model{'s' * (len(models) != 1)} and their base")
        return compare_models(resolved, models, console.progress)


def _show(prepared: PreparedComparison, place: Path) -> None:
    """A table for each judge, with categories where there are some, and remarks."""
    from rich.markup import escape

    from smpo.cli.output import out, records_table
    from smpo.evaluation.report import comparison_text as report

    console, contest = out(), prepared.contest
    for judge in contest.judges:
        mark = "  (made the training labels)" if judge.made_labels else ""
        console.print(f"\n[bold]{escape(judge.name)}[/]{mark}")
        console.print(records_table(report.table(contest, judge.name)))
    believed = contest.believed().name
    means, wins = report.categories(contest, believed), report.wins_by_category(contest, believed)
    for title, rows in (("means", means), ("wins", wins)):
        if rows and len(rows[0]) <= _WIDEST:
            console.print(f"\n[bold]{title} by category[/], judged by {escape(believed)}")
            console.print(records_table(rows))
    if far := report.distances(contest):
        console.print("\n[bold]distance from the base[/]")
        console.print(records_table(far))
    console.print(f"\n{escape(report.about(contest))}")
    for model, panel in contest.panels.items():
        console.print(f"[bold]{escape(model)}[/]: {escape(panel.verdict)}")
    for line in report.remarks(contest):
        console.print(escape(line))
    console.print(f"table      {escape(str(place / 'contest.md'))}, .json with every score", soft_wrap=True)
