"""Shell completion: spec names and files, names in the registry, runs, and the paths that `--set` takes.

Called at each press of the tab key, so nothing here may load torch or fail: unreadable files are left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer

__all__ = ["kinds", "names", "run_ids", "set_paths", "spec_files", "specs", "specs_or_runs"]

Choices = list[tuple[str, str]]


def specs(incomplete: str) -> Choices:
    """Names of shipped specs, and YAML files below what was typed."""
    from smpo.cli.output import shipped_specs

    shipped = [(name, "ships with smpo") for name in shipped_specs() if name.startswith(incomplete)]
    return [*shipped, *spec_files(incomplete)]


def spec_files(incomplete: str) -> Choices:
    """YAML files and folders whose path begins like this."""
    typed = Path(incomplete)
    folder, start = (typed, "") if incomplete.endswith("/") or not incomplete else (typed.parent, typed.name)
    choices: Choices = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(start) or path.name.startswith("."):
                continue
            if path.suffix in {".yaml", ".yml"}:
                choices.append((str(path), ""))
            elif path.is_dir() and start:
                choices.append((f"{path}/", ""))
    return choices


def names(incomplete: str) -> Choices:
    """Cards and components of every kind, each with its summary."""
    return [(name, text) for _, name, text in _everything() if name.startswith(incomplete)]


def kinds(incomplete: str) -> Choices:
    """Kinds of component."""
    return [(kind, "") for kind in sorted({kind for kind, _, _ in _everything()}) if kind.startswith(incomplete)]


def run_ids(incomplete: str) -> Choices:
    """Runs below `runs`, by `<hash>-<attempt>`, and run folders."""
    from smpo.cli.output import relative
    from smpo.runs.store import find_runs

    runs = find_runs(Path("runs"))
    folders = [(relative(run.path), "") for run in runs] if incomplete else []
    return [choice for choice in [*((run.id, run.name) for run in runs), *folders] if choice[0].startswith(incomplete)]


def specs_or_runs(incomplete: str) -> Choices:
    return [*specs(incomplete), *run_ids(incomplete)]


def set_paths(context: typer.Context, incomplete: str) -> Choices:
    """`train.lr=`, and after the sign of equality the names that a slot takes."""
    from smpo.experiment import ExperimentSpec
    from smpo.registry.slots import find_slots

    path, sign, typed = incomplete.partition("=")
    kinds = {slot.name: slot.kind.kind for slot in find_slots(ExperimentSpec)}
    if sign:
        choices = [(name, text) for kind, name, text in _everything() if kind == kinds.get(path)]
        return [(f"{path}={name}", text) for name, text in choices if name.startswith(typed)]
    settings = {name: f"names a {kind}" for name, kind in kinds.items()} | _settings(context.params.get("spec"))
    return [(f"{name}=", text) for name, text in sorted(settings.items()) if name.startswith(path)]


def _everything() -> Iterator[tuple[str, str, str]]:
    from smpo.registry.component import summary_of
    from smpo.registry.resolve import catalogue

    have, _ = catalogue()
    names = {(part.kind, str(part.model_fields["use"].default)): summary_of(part) for part in have.registry}
    names |= {(card.kind, card.name): card.summary for card in have.cards.sound()}
    yield from ((kind, name, text) for (kind, name), text in sorted(names.items()))


def _settings(spec: object) -> dict[str, str]:
    """The settings of a spec with their values, and those of the skeleton with their descriptions."""
    from smpo.cli.output import resolve_spec
    from smpo.errors import SmpoError
    from smpo.experiment import ExperimentSpec
    from smpo.registry.slots import model_of

    values: dict[str, object] = {}
    if isinstance(spec, str):
        with contextlib.suppress(SmpoError, OSError):
            values = resolve_spec(spec).leaves()
    settings = {path: f"now {value}" for path, value in values.items() if not path.endswith(".use")}
    for section in ("train", "evaluate", "runtime"):
        model, _ = model_of(ExperimentSpec.model_fields[section].annotation)
        assert model is not None
        for name, info in model.model_fields.items():
            settings.setdefault(f"{section}.{name}", info.description or "")
    return settings
