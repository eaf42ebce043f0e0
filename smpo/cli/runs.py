"""Runs on the command line: finding one by its name, and the tables of `smpo show`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from smpo.cli.output import make_table, out, print_json
from smpo.errors import MachineError, RunError
from smpo.runs.store import RunFolder, find_runs, is_run

__all__ = ["find_run", "list_runs", "show_run"]


def find_run(word: str, runs: Path, *, finished: bool = False) -> RunFolder:
    """A run by its folder, by the beginning of its id, or the latest of an experiment. Raises `RunError`.

    `finished`: of several, the latest that was run to its end, where there is one.
    """
    path = Path(word)
    if word and is_run(path):
        return RunFolder(path)
    known = _runs_in(runs)
    matching = [run for run in known if run.id.startswith(word)] or [run for run in known if run.name == word]
    if matching and word:
        ended = [run for run in matching if run.status().state == "done"] if finished else []
        return (ended or matching)[-1]
    names = sorted({run.name for run in known})
    there = f"experiments with runs: {', '.join(names)}" if names else "nothing has been run there yet"
    if word and path.is_dir():
        raise RunError(f"`{word}` is a folder, and not that of a run; nor is there a run of that name", help=there)
    raise RunError(f"there is no run `{word}` in {runs}", help=there)


def _runs_in(runs: Path) -> list[RunFolder]:
    """All runs of a folder, which may not exist yet. Raises `MachineError` where it is a file."""
    if runs.exists() and not runs.is_dir():
        raise MachineError(f"`--runs {runs}` is a file", help="name the folder in which runs have their folders")
    return find_runs(runs)


def list_runs(runs: Path, *, as_json: bool) -> None:
    """All runs, oldest first, each with its result."""
    rows = []
    for run in _runs_in(runs):
        evaluation = _json(run.path / "evaluation.json")
        headline = evaluation.get("headline", "") if isinstance(evaluation, dict) else ""
        row = {"name": run.name, "run": run.id, "state": run.summary(), "update": run.status().step}
        rows.append({**row, "result": str(headline)})
    if as_json:
        print_json(rows)
    elif not rows:
        out().print(f"no runs in {runs}", markup=False)
    else:
        table = make_table(*rows[0], right=["update"], no_wrap=["name", "run", "state", "update"])
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row.values()))
        out().print(table)


def show_run(run: RunFolder, *, as_json: bool) -> None:
    """State, result and resolved spec of a run."""
    file = run.path / "evaluation.json"
    evaluation, status = _json(file), run.status()
    if as_json:
        data: dict[str, Any] = {"folder": str(run.path), "state": run.summary(), "step": status.step}
        print_json({**data, "evaluation": evaluation, "lock": _json(run.lock_file)})
        return
    console = out()
    console.print(
        f"[bold]{escape(run.name)}[/]  {run.id}  {run.summary()} at update {status.step}  {escape(status.message)}"
    )
    if evaluation is not None or file.exists():
        try:
            rows, headline = list(_judged(evaluation)), str(evaluation["headline"])
        except (LookupError, TypeError, ValueError, AttributeError):
            message = f"{file} can't be read: its content isn't that of an evaluation"
            console.print(message, markup=False, soft_wrap=True)
        else:
            if rows:
                titles = ("judge", "win rate [95 %]", "base", "policy", "prompts")
                table = make_table(*titles, right=titles[1:], no_wrap=titles)
                for row in rows:
                    table.add_row(*map(escape, row))
                console.print(table)
            console.print(escape(headline))
    console.print()
    if run.resolved.exists():
        sys.stdout.write(run.resolved.read_text(encoding="utf-8", errors="replace"))


def _judged(evaluation: Any) -> Iterator[tuple[str, ...]]:
    """A row for each judge with a win rate."""
    for judge in evaluation["judgements"]:
        c = judge["comparison"]
        if c.get("win_rate") is not None:
            share = f"{c['win_rate']:.3f} [{c['win_rate_low']:.3f}, {c['win_rate_high']:.3f}]"
            means = (c.get("mean_base"), c.get("mean_policy"))
            yield str(judge["name"]), share, *("–" if m is None else f"{m:.4g}" for m in means), str(c["prompts"])


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
