"""Commands about specs, which run nothing: plan, check, new, diff, schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Roots, Runs, Sets, Spec, TrustCode
from smpo.errors import MachineError

if TYPE_CHECKING:
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved
    from smpo.spec.problems import Problem

__all__ = ["check", "diff", "new", "plan", "schema"]


def plan(
    spec: Spec,
    sets: Sets = None,
    full: Annotated[bool, typer.Option("--full", help="Every value, with who set it.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="What the whole of its `sweep:` block would cost.")] = False,
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Show what a spec amounts to; run nothing."""
    if sweep:
        from smpo.app.sweep.request import SweepRequest, resolve_sweep
        from smpo.cli.output import find_spec
        from smpo.cli.sweep_table import show_cost

        request = SweepRequest(find_spec(spec), tuple(sets or ()), tuple(roots or ()))
        show_cost(resolve_sweep(request), as_json=json)
        return
    from smpo.app.plan.plan import make_plan
    from smpo.cli.ablation import ablation_of, show_variants, variants_data
    from smpo.cli.output import print_json, resolve_spec
    from smpo.cli.plan import plan_data, show_plan

    resolved = resolve_spec(spec, sets, roots=roots)
    ablation = ablation_of(spec, resolved, sets, roots=roots)
    _check_sweep(resolved)
    planned = make_plan(resolved)
    if json:
        variants = {"ablation": variants_data(ablation)} if ablation is not None else {}
        print_json({**plan_data(resolved, planned), **variants})
    else:
        show_plan(resolved, planned, full=full)
        if ablation is not None:
            show_variants(ablation)
    if planned.missing:
        raise typer.Exit(3)


def _check_sweep(resolved: Resolved[ExperimentSpec]) -> None:
    """Raises `SpecProblems` for a `sweep:` block that can't be read."""
    if resolved.sweep_node is not None and resolved.sweep_node.data is not None:
        from smpo.app.evaluate.judge_names import judge_names
        from smpo.sweep.read_sweep import read_sweep

        read_sweep(resolved, judge_names(resolved))


def check(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Spec files.", autocompletion=complete.specs)],
    sets: Sets = None,
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Validate specs, many at once; for commits and CI."""
    from smpo.app.plan.warnings import spec_warnings
    from smpo.cli.ablation import ablation_of
    from smpo.cli.output import print_error, print_json, resolve_spec
    from smpo.diagnostics.render import as_data
    from smpo.spec.problems import SpecProblems

    problems: list[Problem] = []
    lines, warnings = list[str](), dict[str, list[str]]()
    for word in specs:  # all of them, also after an error in the first
        try:
            resolved = resolve_spec(word, sets, roots=roots)
            ablation_of(word, resolved, sets, roots=roots)
            _check_sweep(resolved)
        except SpecProblems as error:
            problems += error.problems
        else:
            warnings[word] = list(spec_warnings(resolved))
            lines.append(f"{word}: fine  (spec {resolved.identity.spec_hash})\n")
            lines += [f"  warning: {warning}\n" for warning in warnings[word]]
    if json:
        given = {word: messages for word, messages in warnings.items() if messages}
        print_json({"problems": [as_data(problem) for problem in problems], "warnings": given})
    else:
        sys.stdout.write("".join(lines))
        if problems:
            print_error(SpecProblems(problems))
    if problems:
        raise typer.Exit(2)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it; NAME.yaml is written here.")],
    start: Annotated[
        str, typer.Option("--from", metavar="SPEC", help="A spec to start from.", autocompletion=complete.specs)
    ] = "quickstart",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
    trust_code: TrustCode = False,
) -> None:
    """Write a commented spec to start from."""
    import re
    from shlex import quote

    from smpo.cli.new_spec import new_text
    from smpo.cli.output import find_spec, print_json, print_line, resolve_spec, shipped_specs
    from smpo.spec.problems import nearest

    target = Path(name) if name.endswith((".yaml", ".yml")) else Path(f"{name}.yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", target.stem):
        raise MachineError(
            f"`{target.stem}` can't be the name of an experiment", help="letters, digits, `-`, `_` and `.` will do"
        )
    if target.exists() and not force:
        raise MachineError(f"there is already a file {target}", help="choose another name, or add `--force`")
    source = find_spec(start)
    if not source.exists():
        close = nearest(start, list(shipped_specs()))
        raise MachineError(
            f"there is no spec `{start}` to start from",
            help=f"did you mean `{close}`?" if close else f"choose one of {', '.join(shipped_specs())}",
        )
    resolved = resolve_spec(str(source))  # a copy of a spec with problems would have them, too
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(new_text(source, target), encoding="utf-8")
    if json:
        facts = {"file": str(target), "name": target.stem, "from": str(source)}
        print_json({**facts, "spec": resolved.identity.spec_hash})
    else:
        print_line(f"{target}: try `smpo plan {quote(str(target))}`, then `smpo run {quote(str(target))}`")


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A spec, a run folder, or a run's hash.", autocompletion=complete.specs_or_runs
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=complete.specs_or_runs)],
    runs: Runs = Path("runs"),
    json: Json = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Compare two experiments, value by value."""
    from smpo.cli.diff import Side, run_side, show_diff
    from smpo.cli.output import find_spec, resolve_spec
    from smpo.runs.store import is_run

    sides = []
    for word in (before, after):
        if is_run(Path(word)) or not find_spec(word).exists():
            sides.append(run_side(word, runs))
        else:
            resolved = resolve_spec(word, roots=roots)
            identity = resolved.identity
            sides.append(Side(word, identity.spec_hash, identity.group_hash, resolved.leaves()))
    show_diff(*sides, as_json=json)


def schema(
    write: Annotated[Path | None, typer.Option("--write", help="Write to this file instead of printing.")] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Only what comes with smpo, whatever else is installed.")
    ] = False,
    roots: Roots = None,
) -> None:
    """JSON Schema of the language as installed here, for editors."""
    import json

    from smpo.cli.output import card_folders, print_json
    from smpo.experiment import ExperimentSpec
    from smpo.registry.cards import Cards, builtin_root
    from smpo.registry.expand import Catalogue
    from smpo.registry.plugins import own
    from smpo.registry.resolve import catalogue
    from smpo.registry.schema import spec_schema

    have, _ = catalogue(extra_roots=card_folders(roots))
    if shipped:  # a committed schema must not depend on what is installed
        have = Catalogue(own(have.registry), Cards([builtin_root()]))
    document = spec_schema(ExperimentSpec, have)
    if write is None:
        print_json(document)
    else:
        write.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
