"""`smpo show` and `smpo ui`: looking at what was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from smpo.cli.output import out, print_json
from smpo.errors import MachineError, RunError
from smpo.runs.store import RunFolder, find_runs, is_run

__all__ = ["existing", "find_run", "list_command", "show_command", "show_saved", "sync_command", "ui_command"]


def list_command(runs: Path, *, as_json: bool) -> None:
    """All runs, oldest first, with what came out."""
    rows = []
    for run in find_runs(existing(runs)):
        evaluation = _json(run.path / "evaluation.json")
        said = evaluation.get("headline", "") if isinstance(evaluation, dict) else ""
        rows.append(
            {"name": run.name, "run": run.id, "state": run.summary(), "update": run.status().step,
             "result": str(said)}
        )  # fmt: skip
    if as_json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    console = out()
    if not rows:
        console.print(f"no runs in {runs}", markup=False)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in rows[0]:
        table.add_column(title, no_wrap=title != "result", justify="right" if title == "update" else "left")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row.values()))
    console.print(table)


def show_command(word: str, runs: Path, *, as_json: bool) -> None:
    """State, result and resolved spec of a run."""
    from rich.markup import escape

    run = find_run(word, runs)
    evaluation = _json(run.path / "evaluation.json")
    status = run.status()
    if as_json:
        data: dict[str, Any] = {"folder": str(run.path), "state": run.summary(), "step": status.step}
        print_json({**data, "evaluation": evaluation, "lock": _json(run.lock_file)})
        return
    console = out()
    console.print(
        f"[bold]{escape(run.name)}[/]  {run.id}  {run.summary()} at update {status.step}  {escape(status.message)}"
    )
    show_saved(run.path)
    console.print()
    if run.resolved.exists():
        sys.stdout.write(run.resolved.read_text(encoding="utf-8", errors="replace"))


def show_saved(folder: Path) -> None:
    """The table and the result of a finished run's evaluation."""
    from rich.markup import escape
    from rich.table import Table

    console, file = out(), folder / "evaluation.json"
    evaluation = _json(file)
    if evaluation is None and not file.exists():
        return
    try:
        rows, headline = _judged(evaluation), str(evaluation["headline"])
    except (LookupError, TypeError, ValueError, AttributeError):
        console.print(f"{file} can't be read: its content isn't that of an evaluation", markup=False, soft_wrap=True)
        return
    if rows:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("judge", no_wrap=True)
        for title in ("win rate [95 %]", "base", "policy", "prompts"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    console.print(escape(headline))


def _judged(evaluation: Any) -> list[tuple[str, ...]]:
    """A row for each judge that could tell the two apart."""
    rows: list[tuple[str, ...]] = []
    for judge in evaluation["judgements"]:
        c = judge["comparison"]
        if c.get("win_rate") is not None:
            share = f"{c['win_rate']:.3f} [{c['win_rate_low']:.3f}, {c['win_rate_high']:.3f}]"
            figures = (_number(c.get("mean_base")), _number(c.get("mean_policy")))
            rows.append((str(judge["name"]), share, *figures, str(c["prompts"])))
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def ui_command(runs: Path, port: int) -> None:
    """MLflow's interface on the store of these runs; ends with Ctrl-C."""
    import typer

    from smpo.tracking.ui import run_ui, ui_command

    raise typer.Exit(run_ui(ui_command(runs, port=port), _say))


def sync_command(word: str, runs: Path, uri: str | None) -> None:
    """Replay a run's log into MLflow, and say where it is."""
    from smpo.tracking.mlflow import sync

    run = find_run(word, runs)
    place = sync(run.path, runs, uri, say=_say)
    out().print(f"{run.path} is in MLflow at {place.get('uri', '')} as run {place.get('run_id', '')}", soft_wrap=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def find_run(word: str, runs: Path, *, finished: bool = False) -> RunFolder:
    """By folder, by the beginning of its id, or the latest of an experiment. Raises `RunError`.

    `finished`: of several, the latest that was run to its end, where there is one.
    """
    path = Path(word)
    if word and is_run(path):
        return RunFolder(path)
    known = find_runs(existing(runs))
    found = [run for run in known if run.id.startswith(word)] or [run for run in known if run.name == word]
    if found and word:
        ended = [run for run in found if run.status().state == "done"] if finished else []
        return (ended or found)[-1]
    names = sorted({run.name for run in known})
    there = f"experiments with runs: {', '.join(names)}" if names else "nothing has been run there yet"
    if word and path.is_dir():
        raise RunError(f"`{word}` is a folder, and not that of a run; nor is there a run of that name", help=there)
    raise RunError(f"there is no run `{word}` in {runs}", help=there)


def existing(runs: Path) -> Path:
    """The folder of run folders. One that isn't there yet is empty; a file is a mistake, and raises `MachineError`."""
    if runs.exists() and not runs.is_dir():
        raise MachineError(f"`--runs {runs}` is a file", help="name the folder in which runs have their folders")
    return runs


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
