"""`smpo diff`: what differs between two experiments, wherever they are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.cli.output import find_spec, out, print_json, resolve_spec
from smpo.cli.show import find_run
from smpo.errors import MachineError
from smpo.runs.store import RunFolder, is_run
from smpo.spec.identity import UNHASHED
from smpo.spec.leaves import Absent, diff, leaves
from smpo.spec.read import read
from smpo.spec.source import open_source
from smpo.spec.tree import plain

__all__ = ["diff_command"]


@dataclass(frozen=True)
class _Side:
    """An experiment as leaves. `spec` is None where a file's own identity isn't known."""

    word: str
    spec: str
    group: str
    leaves: dict[str, Any]


def diff_command(
    before: str, after: str, runs: Path, *, as_json: bool, roots: Sequence[Path] | None, no_local_code: bool
) -> None:
    one, two = (_side(word, runs, roots, no_local_code) for word in (before, after))
    changes = diff(one.leaves, two.leaves)
    if as_json:
        print_json(
            {
                "before": {"word": one.word, "spec": one.spec, "group": one.group},
                "after": {"word": two.word, "spec": two.spec, "group": two.group},
                "changes": [
                    {
                        "path": change.path,
                        **({} if isinstance(change.before, Absent) else {"before": change.before}),
                        **({} if isinstance(change.after, Absent) else {"after": change.after}),
                        "hashed": _hashed(change.path),
                    }
                    for change in changes
                ],
            }
        )
        return
    from rich.markup import escape
    from rich.table import Table

    console = out()
    if changes:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("setting", escape(one.word), escape(two.word), ""):
            table.add_column(title, overflow="fold")
        for change in changes:
            said = "" if _hashed(change.path) else "not part of the identity"
            table.add_row(escape(change.path), _shown(change.before), _shown(change.after), f"[dim]{said}[/]")
        console.print(table)
    console.print(_verdict(one, two, bool(changes)))


def _verdict(one: _Side, two: _Side, changed: bool) -> str:
    if one.spec == two.spec:
        return f"the same experiment: spec {one.spec}"
    if one.group and one.group == two.group:
        return f"replicates, group {one.group}: they differ in their seed alone"
    reason = "" if changed else "; all settings are equal, so a component's version or local code has changed"
    return f"spec {one.spec} and spec {two.spec}{reason}"


def _side(word: str, runs: Path, roots: Sequence[Path] | None, no_local_code: bool) -> _Side:
    path = Path(word)
    if is_run(path) or not find_spec(word).exists():
        run = find_run(word, runs)
        return _Side(word, run.spec_hash, _group(run), _run_leaves(run))
    resolved = resolve_spec(word, [], roots=roots, no_local_code=no_local_code)
    return _Side(word, resolved.identity.spec_hash, resolved.identity.group_hash, resolved.leaves())


def _run_leaves(run: RunFolder) -> dict[str, Any]:
    """As it was run, though today's components may have changed."""
    if not run.resolved.exists():
        raise MachineError(f"{run.path} holds no resolved.yaml", help="it stopped before it had begun")
    tree = read(open_source(run.resolved))
    data = plain(tree) if tree is not None else {}
    data.pop("uses", None)
    return leaves(data)


def _group(run: RunFolder) -> str:
    import json

    try:
        lock = json.loads(run.lock_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    found = lock.get("group", "") if isinstance(lock, dict) else ""
    return found if isinstance(found, str) else ""


def _hashed(path: str) -> bool:
    return path.split(".")[0] not in UNHASHED


def _shown(value: Any) -> str:
    from rich.markup import escape

    return "[dim]absent[/]" if isinstance(value, Absent) else escape(repr(value))
