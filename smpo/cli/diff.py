"""The table of `smpo diff`: the settings in which two specs or runs differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from smpo.cli.output import make_table, out, print_json
from smpo.cli.runs import find_run
from smpo.errors import MachineError
from smpo.runs.locate import settings_of
from smpo.runs.lock import read_lock
from smpo.spec.identity import UNHASHED
from smpo.spec.leaves import Absent, diff

__all__ = ["Side", "run_side", "show_diff"]


@dataclass(frozen=True)
class Side:
    """An experiment as leaves. `group` is empty where it isn't known."""

    word: str
    spec: str
    group: str
    leaves: dict[str, Any]


def run_side(word: str, runs: Path) -> Side:
    """A run with the settings it had, though today's components may have changed."""
    run = find_run(word, runs)
    if not run.resolved.exists():
        raise MachineError(f"{run.path} holds no resolved.yaml", help="it stopped before it had begun")
    group = read_lock(run.lock_file).get("group")
    settings = {path: value for path, value in settings_of(run).items() if path.split(".")[0] != "uses"}
    return Side(word, run.spec_hash, group if isinstance(group, str) else "", settings)


def show_diff(one: Side, two: Side, *, as_json: bool) -> None:
    """A row for each setting that differs, and whether the two are one experiment or replicates."""
    changes = diff(one.leaves, two.leaves)
    if as_json:
        rows = []
        for change in changes:
            values = {"before": change.before, "after": change.after}
            present = {name: value for name, value in values.items() if not isinstance(value, Absent)}
            rows.append({"path": change.path, **present, "hashed": _hashed(change.path)})
        before, after = ({"word": side.word, "spec": side.spec, "group": side.group} for side in (one, two))
        print_json({"before": before, "after": after, "changes": rows})
        return
    console = out()
    if changes:
        table = make_table("setting", escape(one.word), escape(two.word), "")
        for column in table.columns:
            column.overflow = "fold"
        for change in changes:
            remark = "" if _hashed(change.path) else "not part of the identity"
            table.add_row(escape(change.path), _shown(change.before), _shown(change.after), f"[dim]{remark}[/]")
        console.print(table)
    if one.spec == two.spec:
        console.print(f"the same experiment: spec {one.spec}")
    elif one.group and one.group == two.group:
        console.print(f"replicates, group {one.group}: they differ in their seed alone")
    else:
        reason = "" if changes else "; all settings are equal, so a component's version or local code has changed"
        console.print(f"spec {one.spec} and spec {two.spec}{reason}")


def _hashed(path: str) -> bool:
    return path.split(".")[0] not in UNHASHED


def _shown(value: Any) -> str:
    return "[dim]absent[/]" if isinstance(value, Absent) else escape(repr(value))
