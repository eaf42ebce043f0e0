"""Packages that components need beyond smpo's own, looked for without importing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from smpo.errors import MachineError
from smpo.registry.component import Component
from smpo.spec.problems import Problem

__all__ = ["is_installed", "require", "require_package", "unmet"]


def unmet(components: Mapping[str, Component]) -> tuple[Problem, ...]:
    """A warning for every slot whose component could not do its work on this machine; `smpo plan` ends with 3 then."""
    return tuple(
        Problem(_message(component, missing), path=path, level="warning", help=_command(component, missing))
        for path, component in components.items()
        if (missing := _missing(component))
    )


def require(components: Iterable[Component]) -> None:
    """Raises `MachineError` for the first component that lacks a package."""
    for component in components:
        missing = _missing(component)
        if missing:
            raise MachineError(_message(component, missing), help=_command(component, missing))


def _missing(component: Component) -> list[str]:
    return [module for module in component.requires if not is_installed(module)]


def require_package(package: str, purpose: str) -> None:
    """Raises `MachineError` where `purpose` needs a package that is not installed."""
    if not is_installed(package):
        raise MachineError(f"{purpose} needs `{package}`, which is not installed", help=f"`pip install {package}`")


def is_installed(module: str) -> bool:
    """Whether the package of this module can be found, without importing it."""
    try:
        return find_spec(module.split(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _message(component: Component, missing: list[str]) -> str:
    packages = " and ".join(f"`{module}`" for module in missing)
    absent = "which is not installed" if len(missing) == 1 else "which are not installed"
    return f"{component.kind} `{component.use}` needs {packages}, {absent}"


def _command(component: Component, missing: list[str]) -> str:
    if component.extra:
        return f'`pip install "smpo[{component.extra}]"`'
    return f"`pip install {' '.join(module.split('.')[0] for module in missing)}`"
