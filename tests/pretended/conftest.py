"""Fixtures of the tests on the pretended GPU. Those without the marker `pretended` run anywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "pretended_gpu"


@pytest.fixture(scope="session")
def device():
    """The counters of the device; skips where this Python isn't that of `nox -s pretended_gpu`."""
    return pytest.importorskip("pretended", reason="needs the environment of `nox -s pretended_gpu`")


@pytest.fixture(scope="session")
def matrix(device, tmp_path_factory):
    """Runs of the small spec that share caches."""
    from tools.pretended_gpu.matrix import Matrix

    return Matrix(tmp_path_factory.mktemp("matrix"))


@pytest.fixture
def module_of_the_tool():
    """Loads a file of the tool that needs no device, by its path below the tool's folder."""

    def load(path: str):
        spec = importlib.util.spec_from_file_location(Path(path).stem, TOOL / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
