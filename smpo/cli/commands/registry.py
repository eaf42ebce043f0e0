"""`smpo registry`: everything a spec can name."""

from __future__ import annotations

from typing import Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Roots
from smpo.errors import MachineError

__all__ = ["registry_check", "registry_list", "registry_show"]


def registry_list(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="Only this kind, such as reward.", autocompletion=complete.kinds),
    ] = None,
    json: Json = False,
    roots: Roots = None,
) -> None:
    """Everything a spec can name, with a line about each."""
    from rich.markup import escape

    from smpo.cli.output import card_folders, make_table, out, print_json
    from smpo.registry.component import summary_of
    from smpo.registry.resolve import catalogue
    from smpo.spec.problems import nearest

    have, warnings = catalogue(extra_roots=card_folders(roots))
    kinds = have.registry.kinds()
    if kind is not None and kind not in kinds:
        close = nearest(kind, kinds)
        raise MachineError(f"there is no kind `{kind}`", help=f"did you mean `{close}`?" if close else ", ".join(kinds))
    rows = []
    for one in [kind] if kind else kinds:
        names = {name: ("component", summary_of(part)) for name, part in have.registry.of(one).items()}
        names |= {card.name: (f"card of {card.use}", card.summary) for card in have.cards.all(one)}
        rows += [{"kind": one, "name": n, "is": what, "summary": text} for n, (what, text) in sorted(names.items())]
    if json:
        print_json(rows)
        return
    table, before = make_table("kind", "name", "is", "summary", no_wrap=("kind", "name", "is")), ""
    for row in rows:
        table.add_row("" if row["kind"] == before else row["kind"], *map(escape, list(row.values())[1:]))
        before = row["kind"]
    out().print(table)
    for warning in warnings:
        out().print(f"[yellow]warning[/]  {escape(warning.message)}")


def registry_check(json: Json = False, roots: Roots = None) -> None:
    """Look at every card: is it sound, and does what it names exist?"""
    from smpo.cli.output import card_folders, out, print_json
    from smpo.diagnostics.render import as_data
    from smpo.experiment import ExperimentSpec
    from smpo.registry.check import check_cards
    from smpo.registry.resolve import catalogue
    from smpo.spec.problems import SpecProblems

    have, warnings = catalogue(extra_roots=card_folders(roots))
    problems = [*check_cards(have, ExperimentSpec), *warnings]
    if json:
        print_json({"problems": [as_data(problem) for problem in problems]})
    if any(problem.level == "error" for problem in problems):
        raise SpecProblems(problems)
    if not json:
        out().print(f"{len(have.cards.all())} cards: fine")


def registry_show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A card or component, such as renoise.", autocompletion=complete.names)
    ],
    json: Json = False,
    roots: Roots = None,
) -> None:
    """One card or component: formula, fields, defaults, source."""
    from smpo.cli.output import card_folders, print_json
    from smpo.cli.registry import entries_of, show_entry
    from smpo.registry.resolve import catalogue
    from smpo.spec.problems import nearest

    have, _ = catalogue(extra_roots=card_folders(roots))
    entries = entries_of(name, have)
    if not entries:
        close = nearest(
            name,
            {*(card.name for card in have.cards.all()), *(part.model_fields["use"].default for part in have.registry)},
        )
        raise MachineError(
            f"nothing is called `{name}`",
            help=f"did you mean `{close}`?" if close else "`smpo registry list` shows everything",
        )
    if json:
        print_json(entries)
        return
    for entry in entries:
        show_entry(entry)
