"""`smpo show` and `smpo ui`: looking at what was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from smpo.cli.words import out, print_json
from smpo.errors import RunError
from smpo.runs.store import RunFolder, find_runs

__all__ = ["show_command", "show_saved", "sync_command", "ui_command"]


def show_command(word: str, runs: Path, *, as_json: bool) -> None:
    """State, result and resolved spec of a run."""
    from rich.markup import escape

    run = _find(word, runs)
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
        sys.stdout.write(run.resolved.read_text(encoding="utf-8"))


def show_saved(folder: Path) -> None:
    """What a finished run's evaluation says."""
    from rich.markup import escape

    console, evaluation = out(), _json(folder / "evaluation.json") or {}
    for judge in evaluation.get("judgements", []):
        c = judge["comparison"]
        if c.get("win_rate") is not None:
            console.print(
                f"  {judge['name']}: win rate {c['win_rate']:.3f} [{c['win_rate_low']:.3f}, {c['win_rate_high']:.3f}] "
                f"over {c['prompts']} prompts",
                markup=False,
            )
    if evaluation:
        console.print(f"  {escape(evaluation['headline'])}")


def ui_command(runs: Path, port: int) -> None:
    """MLflow's interface on the store of these runs; ends with Ctrl-C."""
    import typer

    from smpo.tracking.ui import run_ui, ui_command

    raise typer.Exit(run_ui(ui_command(runs, port=port), _say))


def sync_command(word: str, runs: Path, uri: str | None) -> None:
    """Replay a run's log into MLflow, and say where it is."""
    from smpo.tracking.mlflow import sync

    run = _find(word, runs)
    place = sync(run.path, runs, uri, say=_say)
    out().print(
        f"{run.path} is in MLflow at {place.get('uri', '')} as run {place.get('run_id', '')}", soft_wrap=True
    )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _find(word: str, runs: Path) -> RunFolder:
    path = Path(word)
    if (path / "status.json").exists():
        return RunFolder(path)
    found = find_runs(runs, spec_hash=word) or [run for run in find_runs(runs) if run.name == word]
    if not found:
        names = sorted({run.name for run in find_runs(runs)})
        raise RunError(
            f"there is no run `{word}` in {runs}",
            help=f"experiments with runs: {', '.join(names)}" if names else "nothing has been run there yet",
        )
    return found[-1]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
