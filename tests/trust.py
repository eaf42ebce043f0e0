"""Local code that tests write themselves."""

import hashlib
from pathlib import Path

import pytest

from smpo.registry.trust import VARIABLE

__all__ = ["trust"]


def trust(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    """Trust the content of these files in this test and its processes."""
    monkeypatch.setenv(VARIABLE, ",".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
