"""A CUDA build of torch and CUDA's headers from pip's index, without NVIDIA's libraries; checks of the machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "HEADERS",
    "Missing",
    "TorchBuild",
    "check_machine",
    "find_torch",
    "install_headers",
    "install_torch",
]

HEADERS = "headers-{cuda}"
VERSIONS = ("2.13.0", "2.12.1", "2.11.0")
"""Versions of torch whose wheels for Linux are built with CUDA 13. The environment's own version is tried first."""
_GIGABYTES = 4
"""On the disk: torch 1.3, its wheel twice for a moment, 0.6 in pip's cache. 1.3 stay."""
_PATIENCE = 1200
"""Seconds until a download of half a gigabyte counts as failed."""


class Missing(Exception):
    """This machine lacks something, and the pretended GPU is skipped; the message names it."""


class TorchBuild(NamedTuple):
    version: str
    cuda: str
    """Such as `13.0`."""

    @property
    def number(self) -> int:
        """As CUDA itself counts: 13000 for 13.0."""
        major, minor = self.cuda.split(".")[:2]
        return int(major) * 1000 + int(minor) * 10


def check_machine() -> None:
    """Raises `Missing`, with all lacking programs in one sentence."""
    system = f"{platform.system()} on {platform.machine()}"
    if system != "Linux on x86_64":
        raise Missing(f"it needs Linux on x86_64, and this is {system}")
    lacking = [name for name in ("gcc", "nm", "readelf") if shutil.which(name) is None]
    if lacking:
        raise Missing(f"{', '.join(lacking)} not found (Debian: apt-get install gcc libc6-dev binutils)")
    if importlib.util.find_spec("pip") is None:
        raise Missing(f"{sys.executable} has no pip")


def find_torch(site: Path) -> TorchBuild | None:
    """The build in this folder of packages; None without one, or where it isn't one for CUDA 13."""
    file = site / "torch" / "version.py"
    if not file.is_file() or not list(site.glob("torch-*.dist-info/RECORD")):
        return None
    text = file.read_text()
    version, cuda = (
        re.search(r"^__version__ = '(.*)'", text, re.M),
        re.search(r"^cuda.*= '(13\..*)'", text, re.M),
    )
    return TorchBuild(version[1], cuda[1]) if version and cuda else None


def install_torch(python: Path, site: Path, folder: Path) -> TorchBuild:
    """The first version that pip finds, without the libraries of NVIDIA that it names."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < _GIGABYTES:
        raise Missing(f"{free:.1f} GB are free at {folder}, and {_GIGABYTES} are needed")
    errors = ""
    for version in _candidates():
        print(
            f"pretended GPU: installing torch {version} for CUDA, without NVIDIA's libraries (half a GB)",
            flush=True,
        )
        # `===` compares letters: a build for CPUs ("2.13.0+cpu") that pip knows of isn't taken for 2.13.0.
        errors = _pip("--python", python, "install", "--no-deps", "--no-compile", f"torch==={version}")
        if (found := find_torch(site)) is not None:
            return found
    raise Missing(f"pip finds no CUDA 13 build of torch: {errors}")


def install_headers(target: Path, torch: TorchBuild) -> None:
    """CUDA's own declarations of structures: two small wheels, of which the headers are kept."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        wanted = (f"nvidia-cuda-runtime=={torch.cuda}.*", f"nvidia-cuda-crt=={torch.cuda}.*")
        errors = _pip("download", "--no-deps", "-d", scratch, *wanted)
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) < len(wanted):
            raise Missing(f"pip finds no headers of CUDA {torch.cuda}: {errors}")
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(scratch, [one for one in packed.namelist() if "/include/" in one])
        (include,) = Path(scratch).glob("nvidia/*/include")
        shutil.move(include, target)


def _candidates() -> list[str]:
    """PRETENDED_TORCH alone, where it is set; else the environment's version, then the newest."""
    if wish := os.environ.get("PRETENDED_TORCH"):
        return [wish]
    try:
        here = importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        here = ""
    return sorted(VERSIONS, key=lambda version: version != here)


def _pip(*words: str | Path) -> str:
    """Run pip; returns the last line of its errors, empty after success."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"pip took longer than {_PATIENCE // 60} minutes"
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else f"pip ended with {done.returncode}"
