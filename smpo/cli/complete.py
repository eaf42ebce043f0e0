"""Shell completion: spec names and files, names in the registry, runs, and the paths that `--set` takes.

Called at each press of the tab key, so nothing here may load torch or fail: what can't be read is left out.
"""

from __future__ import annotations

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
    found: Choices = []
    try:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(start) or path.name.startswith("."):
                continue
            if path.suffix in {".yaml", ".yml"}:
                found.append((str(path), ""))
            elif path.is_dir() and start:
                found.append((f"{path}/", ""))
    except OSError:
        return []
    return found


def names(incomplete: str) -> Choices:
    """Cards and components of every kind, each with its summary."""
    return [(name, text) for _, name, text in _everything() if name.startswith(incomplete)]


def kinds(incomplete: str) -> Choices:
    """Kinds of component."""
    return [(kind, "") for kind in sorted({kind for kind, _, _ in _everything()}) if kind.startswith(incomplete)]


def run_ids(incomplete: str) -> Choices:
    """Runs below `runs`, by `<hash>-<attempt>`, and run folders."""
    from smpo.runs.store import find_runs

    found = find_runs(Path("runs"))
    by_id = [(run.id, run.name) for run in found if run.id.startswith(incomplete)]
    folders = [(str(folder), "") for run in found if (folder := _here(run.path)).startswith(incomplete)]
    return [*by_id, *(folders if incomplete else [])]


def specs_or_runs(incomplete: str) -> Choices:
    return [*specs(incomplete), *run_ids(incomplete)]


def set_paths(context: typer.Context, incomplete: str) -> Choices:
    """`train.lr=`, and after the sign of equality what may stand there."""
    path, sign, typed = incomplete.partition("=")
    if sign:
        return [(f"{path}={value}", text) for value, text in _values(path) if value.startswith(typed)]
    word = context.params.get("spec")
    return [(f"{name}=", text) for name, text in _paths(word) if name.startswith(path)]


def _here(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _everything() -> Iterator[tuple[str, str, str]]:
    from smpo.registry.component import summary_of
    from smpo.registry.resolve import catalogue

    have, _ = catalogue()
    found = {
        (component.kind, str(component.model_fields["use"].default)): summary_of(component)
        for component in have.registry
    }
    found |= {(card.kind, card.name): card.summary for card in have.cards.sound()}
    yield from ((kind, name, text) for (kind, name), text in sorted(found.items()))


def _paths(word: object) -> Iterator[tuple[str, str]]:
    """The leaves of the spec that was named, and its slots; without a sound spec, those of the skeleton alone."""
    from smpo.errors import SmpoError
    from smpo.experiment import ExperimentSpec
    from smpo.registry.slots import find_slots

    slots = find_slots(ExperimentSpec)
    found = {slot.name: f"names a {slot.kind.kind}" for slot in slots}
    if isinstance(word, str):
        from smpo.cli.output import resolve_spec

        try:  # `uses:` would run code, which a press of the tab key must not
            leaves = resolve_spec(word, []).leaves()
        except (SmpoError, OSError):
            leaves = {}
        found |= {path: f"now {value}" for path, value in leaves.items() if not path.endswith(".use")}
    for section in ("train", "evaluate", "runtime"):
        fields = _fields(section)
        found |= {f"{section}.{name}": text for name, text in fields.items() if f"{section}.{name}" not in found}
    yield from sorted(found.items())


def _fields(section: str) -> dict[str, str]:
    from smpo.experiment import ExperimentSpec
    from smpo.registry.slots import model_of

    model, _ = model_of(ExperimentSpec.model_fields[section].annotation)
    assert model is not None
    return {name: info.description or "" for name, info in model.model_fields.items()}


def _values(path: str) -> Iterator[tuple[str, str]]:
    """Names for a slot."""
    from smpo.experiment import ExperimentSpec
    from smpo.registry.slots import find_slots

    for slot in find_slots(ExperimentSpec):
        if slot.name == path:
            yield from ((name, text) for kind, name, text in _everything() if kind == slot.kind.kind)
