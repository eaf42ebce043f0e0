"""Which names of libraries a file uses, and whether the installed libraries have them.

A branch that only a GPU takes is executed by few tests, but its names can be looked up: `torch.cuda.a.b` is resolved
from the import that binds `torch`, attribute by attribute, as long as the object is a module or a class. A call's
arguments are compared with the signature of what is called, where that is written in Python.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["faults_of"]

Bound = tuple[str, tuple[str, ...]]
"""A module to import, and the attributes to follow from there."""
Scope = Mapping[str, Bound | None]
"""The object behind each name; None: known only when the code runs."""

_NESTED = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def faults_of(file: Path, own: Iterable[str] = ()) -> list[str]:
    """`path:line: torch.cuda.getdevice_name does not exist` for each name that an installed library lacks.

    Names of Python's own library and of the packages `own` are left to type checkers.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    own = {*own, *sys.stdlib_module_names}
    found = dict.fromkeys(f"{file}:{line}: {fault}" for line, fault in _faults(tree, {}, own))
    return list(found)


def _faults(scope_node: ast.AST, outer: Scope, own: set[str]) -> Iterator[tuple[int, str]]:
    inside = list(_inside(scope_node))
    scope = {**outer, **_bindings(inside)}
    calls = {id(node.func): node for node in inside if isinstance(node, ast.Call)}
    parts = {id(node.value) for node in inside if isinstance(node, ast.Attribute)}
    for node in inside:
        bounds: list[Bound | None] = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            bounds = [*_imported(node).values()]
        elif isinstance(node, ast.Attribute | ast.Name) and id(node) not in parts:
            bounds = [_chain(node, scope)]
        for bound in bounds:
            if bound is not None and bound[0].partition(".")[0] not in own:
                fault = _fault(bound, calls.get(id(node)))
                if fault:
                    yield getattr(node, "lineno", 0), fault
        if isinstance(node, _NESTED):
            yield from _faults(node, scope, own)


def _inside(scope_node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope; of nested scopes the first node alone."""
    waiting = list(ast.iter_child_nodes(scope_node))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _NESTED):
            waiting += ast.iter_child_nodes(node)


def _bindings(inside: list[ast.AST]) -> dict[str, Bound | None]:
    found: dict[str, Bound | None] = {}
    for node in inside:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= _imported(node)
    for node in inside:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                found[name] = None
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = None
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                found[name] = None
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, Bound]:
    """By the name that the import binds; `import torch.distributed` counts as one of `torch.distributed`."""
    if isinstance(node, ast.Import):
        return {one.asname or one.name: (one.name, ()) for one in node.names}
    if node.level or node.module is None:
        return {}
    return {one.asname or one.name: (node.module, (one.name,)) for one in node.names if one.name != "*"}


def _chain(node: ast.AST, scope: Scope) -> Bound | None:
    """`torch.cuda.Event` as the module behind `torch`, and the attributes `cuda` and `Event`."""
    attributes: tuple[str, ...] = ()
    while isinstance(node, ast.Attribute):
        attributes = (node.attr, *attributes)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if node.id in scope:
        bound = scope[node.id]
        return None if bound is None else (bound[0], (*bound[1], *attributes))
    return (node.id, attributes) if any(name.startswith(f"{node.id}.") for name in scope) else None


def _fault(bound: Bound, call: ast.Call | None) -> str:
    name = ".".join((bound[0], *bound[1]))
    try:
        found = _resolved(*bound)
    except (AttributeError, ImportError):
        return f"{name} does not exist"
    misfit = "" if call is None else _misfit(found, call)
    return f"{name}: {misfit}" if misfit else ""


@cache
def _resolved(module: str, attributes: tuple[str, ...]) -> Any:
    """The object; None where only running the code would tell, and for packages that aren't installed.

    Raises `AttributeError`, `ImportError` for a name that doesn't exist.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return None
    found: Any = importlib.import_module(module)
    for name in attributes:
        if not isinstance(found, ModuleType | type):
            return None
        try:
            found = getattr(found, name)
        except AttributeError:
            if not isinstance(found, ModuleType):
                raise
            found = importlib.import_module(f"{found.__name__}.{name}")
    return found


def _misfit(called: Any, call: ast.Call) -> str:
    """Why the arguments of a call don't fit, where the signature is Python's and all arguments are written out."""
    maker = called.__init__ if isinstance(called, type) else called
    spread = any(isinstance(one, ast.Starred) for one in call.args) or any(not one.arg for one in call.keywords)
    if spread or not inspect.isfunction(maker):
        return ""
    try:
        inspect.signature(called).bind(*call.args, **{str(one.arg): None for one in call.keywords})
    except TypeError as error:
        return str(error)
    except ValueError:  # no signature
        return ""
    return ""
