"""A build of the pretended GPU on a machine that lacks something ends with one line, and without a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.pretended.conftest import TOOL


def test_a_machine_without_a_compiler_skips_in_one_line(tmp_path):
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "ready").touch()  # of a build before
    command = [sys.executable, str(TOOL / "build.py"), str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("pretended GPU: skipped: ") and "gcc" in line
    assert not (folder / "ready").exists()


@pytest.fixture
def torch_build(module_of_the_tool, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL))
    return module_of_the_tool("torch_build.py")


def test_a_full_disk_is_named(torch_build, monkeypatch, tmp_path):
    monkeypatch.setattr(torch_build.shutil, "disk_usage", lambda _: SimpleNamespace(free=1.25e9))
    with pytest.raises(torch_build.Missing, match=r"1\.2 GB are free at .*, and 4 are needed"):
        torch_build.install_torch(tmp_path / "python", tmp_path, tmp_path)


def test_an_index_without_such_builds_is_an_error_in_pips_words(torch_build, monkeypatch, tmp_path, capfd):
    tried = []
    monkeypatch.setattr(torch_build, "_pip", lambda *words: tried.append(words[-1]) or "ERROR: No matching one")
    monkeypatch.setattr(torch_build.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e12))
    with pytest.raises(torch_build.Missing, match="no CUDA 13 build of torch: ERROR: No matching one"):
        torch_build.install_torch(tmp_path / "python", tmp_path, tmp_path)
    assert tried == [f"torch==={version}" for version in torch_build._candidates()]


def test_the_version_of_this_environment_is_tried_first(torch_build, monkeypatch):
    monkeypatch.delenv("PRETENDED_TORCH", raising=False)
    monkeypatch.setattr(torch_build.importlib.metadata, "version", lambda _: "2.11.0+cpu")
    assert torch_build._candidates() == ["2.11.0", "2.13.0", "2.12.1"]
    monkeypatch.setattr(torch_build.importlib.metadata, "version", lambda _: "2.7.0")
    assert torch_build._candidates() == ["2.13.0", "2.12.1", "2.11.0"], "2.7.0 was built with CUDA 12"


def test_other_systems_are_named(torch_build, monkeypatch):
    monkeypatch.setattr(torch_build.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch_build.platform, "system", lambda: "Darwin")
    with pytest.raises(torch_build.Missing, match="needs Linux on x86_64, and this is Darwin on arm64"):
        torch_build.check_machine()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n", ("2.13.0+cu130", "13.0")),
        ("__version__ = '2.9.0'\ncuda: Optional[str] = '12.8'\n", None),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", None),
    ],
)
def test_only_a_build_for_cuda_13_counts(torch_build, tmp_path, text, found):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(text)
    assert torch_build.find_torch(tmp_path) is None, "pip has not finished"
    (tmp_path / "torch-2.dist-info").mkdir()
    (tmp_path / "torch-2.dist-info" / "RECORD").touch()
    assert torch_build.find_torch(tmp_path) == found


def test_cuda_counts_its_versions_in_thousands(torch_build):
    assert torch_build.TorchBuild("2.13.0", "13.0").number == 13000
    assert torch_build.TorchBuild("2.14.0", "13.2").number == 13020
