"""Code that isn't smpo's: installed packages by entry point, and Python files named in a spec's `uses:`.

An entry point of the group `smpo.components` names a module; importing it registers what it declares. A local
file is imported under a name made from its content, and what it declares is known to that one spec only.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from smpo.registry.component import REGISTRY, Component, Registry, collecting
from smpo.registry.trust import is_trusted
from smpo.spec.layers import UseFile
from smpo.spec.problems import Problem, SpecProblems
from smpo.spec.source import display_path

__all__ = ["GROUP", "LocalFile", "installed", "load_entry_points", "load_local", "own"]

GROUP = "smpo.components"


@dataclass(frozen=True)
class LocalFile:
    """A file of local code: where it is, and what it holds."""

    path: Path
    digest: str
    """SHA-256 of its bytes; part of the identity of every spec that uses it."""
    components: tuple[type[Component], ...] = ()


_failures: dict[str, str] = {}
_loaded: set[str] = set()
_local: dict[str, tuple[type[Component], ...]] = {}


def installed() -> tuple[Registry, tuple[Problem, ...]]:
    """The common registry with every installed package in it, and a warning for each that couldn't be
    imported."""
    load_entry_points(entry_points(group=GROUP))
    warnings = [
        Problem(f"the package behind entry point `{name}` can't be used: {reason}", level="warning")
        for name, reason in sorted(_failures.items())
    ]
    return REGISTRY, tuple(warnings)


def own(registry: Registry) -> Registry:
    """The components of smpo itself, without those of third parties."""
    found = Registry()
    for component in registry:
        if component.__module__.split(".")[0] == "smpo":
            found.add(component)
    return found


def load_entry_points(points: Iterable[EntryPoint], registry: Registry | None = None) -> None:
    """Import what the entry points name, once. One broken package must not take all of smpo with it."""
    for point in sorted(points, key=lambda point: (point.name != "smpo", point.name)):
        if point.value in _loaded and registry is None:
            continue
        try:
            with collecting(registry if registry is not None else REGISTRY):
                point.load()
        except Exception as error:
            if point.name == "smpo":
                raise  # our own components: a bug, and its traceback is what is wanted
            _failures[point.name] = f"{type(error).__name__}: {error}"
        _loaded.add(point.value)


def load_local(files: Iterable[UseFile], registry: Registry) -> tuple[Registry, tuple[LocalFile, ...]]:
    """A copy of the registry with the components of these files, and what was read.

    Raises `SpecProblems`, located at the entry of `uses`: code is not trusted, is missing, fails, or clashes.
    """
    together = registry.copy()
    found: dict[str, LocalFile] = {}  # by content: parent and child may well use the same file
    problems: list[Problem] = []
    for use in files:
        try:
            local = _load_file(use)
            for component in local.components:
                _add(together, component, use)
        except SpecProblems as error:
            problems.extend(error.problems)
        else:
            found.setdefault(local.digest, local)
    if problems:
        raise SpecProblems(problems)
    return together, tuple(found.values())


def _add(registry: Registry, component: type[Component], use: UseFile) -> None:
    name = str(component.model_fields["use"].default)
    other = registry.get(component.kind, name)
    if other is not None and other is not component:
        taken = f"{component.kind} `{name}` is already {other.__module__}:{other.__qualname__}"
        message = f"{taken}; `{display_path(use.path)}` has to call its own by another name"
        raise SpecProblems([Problem(message, use.span, "uses")])
    registry.add(component)


def _load_file(use: UseFile) -> LocalFile:
    shown = display_path(use.path)
    try:
        raw = use.path.read_bytes()
    except OSError as error:
        reason = "there is no file" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
        raise SpecProblems([Problem(f"{reason} `{shown}`", use.span, "uses")]) from None
    digest = hashlib.sha256(raw).hexdigest()
    if not is_trusted(digest):
        help = "read it first; `--trust-code` runs it, and trusts this content from then on"
        raise SpecProblems([Problem(f"`{shown}` is code that was never trusted here", use.span, "uses", help=help)])
    name = f"smpo_local_{use.path.stem}_{digest[:12]}".replace("-", "_")
    if name not in sys.modules or name not in _local:
        _local[name] = _import(name, raw, use, shown)
    return LocalFile(use.path.absolute(), digest, _local[name])


def _import(name: str, raw: bytes, use: UseFile, shown: str) -> tuple[type[Component], ...]:
    """Run exactly the bytes that were hashed; a byte-code cache could be older than they are."""
    module = ModuleType(name)
    module.__file__ = str(use.path)
    sys.modules[name] = module  # pickling and pydantic look classes up by their module
    try:
        with collecting(Registry()) as registry:
            exec(compile(raw, str(use.path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise SpecProblems([_failed(error, use, shown)]) from error
    return tuple(registry)


def _failed(error: BaseException, use: UseFile, shown: str) -> Problem:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(use.path)]
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
    where = f" on line {line}" if line else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return Problem(f"`{shown}` can't be imported: {type(error).__name__}{where}: {text}", use.span, "uses")
