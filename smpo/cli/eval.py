"""`smpo eval`: any number of models on the same prompts and seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smpo.cli.output import card_folders, find_spec, out, print_json

if TYPE_CHECKING:
    from smpo.app.evaluate.compare import PreparedComparison

__all__ = ["eval_command", "held_contest"]


def held_contest(
    words: Sequence[str],
    *,
    spec: str | None,
    sets: Sequence[str],
    runs: Path,
    roots: Sequence[Path] | None,
    quiet: bool,
) -> PreparedComparison:
    """The models that the words mean, evaluated; what is known already isn't drawn again."""
    from smpo.app.evaluate.compare import compare_models
    from smpo.app.evaluate.models import find_models, spec_of
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve
    from smpo.tracking.console import Console

    contenders = find_models(words, runs)
    source = find_spec(spec) if spec is not None else spec_of(contenders)
    resolved = resolve(source, skeleton=ExperimentSpec, sets=sets, extra_roots=card_folders(roots))
    with Console(quiet=quiet) as console:
        console.phase(f"{len(contenders)} model{'s' * (len(contenders) != 1)} and their base")
        return compare_models(resolved, contenders, console.progress)


def eval_command(
    words: Sequence[str],
    *,
    spec: str | None,
    sets: Sequence[str],
    runs: Path,
    folder: Path | None,
    roots: Sequence[Path] | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from smpo.evaluation.report.comparison_text import markdown

    held = held_contest(words, spec=spec, sets=sets, runs=runs, roots=roots, quiet=quiet or as_json)
    contest = held.contest
    told = json.dumps([contest.to_dict()["settings"], list(contest.models), contest.prompt_set, len(contest.prompts)])
    place = folder or runs / "evaluations" / hashlib.sha256(told.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    (place / "contest.json").write_text(json.dumps(contest.to_dict(), indent=1) + "\n", encoding="utf-8")
    (place / "contest.md").write_text(markdown(contest), encoding="utf-8")
    if as_json:
        print_json({key: value for key, value in contest.to_dict().items() if key != "scores"})
        return
    show_contest(held, place)


WIDEST = 14
"""Columns of a table by category that a terminal still shows; more are in the files."""


def show_contest(held: PreparedComparison, place: Path) -> None:
    """One table a judge, with categories where there are some, and what to keep in mind."""
    from rich.markup import escape

    from smpo.cli.tables import judges_table
    from smpo.evaluation.report.comparison_text import (
        about,
        categories,
        distances,
        remarks,
        table,
        wins_by_category,
    )

    console, contest = out(), held.contest
    for judge in contest.judges:
        mark = "  (made the training labels)" if judge.made_labels else ""
        console.print(f"\n[bold]{escape(judge.name)}[/]{mark}")
        console.print(judges_table(table(contest, judge.name)))
    believed = contest.believed().name
    for title, rows in (
        ("means", categories(contest, believed)),
        ("wins", wins_by_category(contest, believed)),
    ):
        if rows and len(rows[0]) <= WIDEST:
            console.print(f"\n[bold]{title} by category[/], judged by {escape(believed)}")
            console.print(judges_table(rows))
    if far := distances(contest):
        console.print("\n[bold]distance from the base[/]")
        console.print(judges_table(far))
    console.print(f"\n{escape(about(contest))}")
    for model, panel in contest.panels.items():
        console.print(f"[bold]{escape(model)}[/]: {escape(panel.verdict)}")
    for line in remarks(contest):
        console.print(escape(line))
    console.print(f"table      {escape(str(place / 'contest.md'))}, .json with every score", soft_wrap=True)
