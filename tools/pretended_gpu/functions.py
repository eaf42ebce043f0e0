"""Write the C file of functions that do nothing: all that torch's files take from NVIDIA's libraries and the C files
beside this one don't define.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Wanted", "wanted"]

_NVIDIA = re.compile(
    r"(__cuda|cu[A-Z]|cuda|cublas|cudnn|cusparse|cusolver|cufft|curand|cupti|nccl|nvshmem|nvrtc|nvJitLink|nvml)"
)
_LIBRARY = re.compile(r"lib(cu(?!da_linalg)|nccl|nvshmem|nvrtc|nvJitLink)[A-Za-z_]*\.so\.\d+")
_QUIET = re.compile(r"(__cuda|cuda|cublas|cu[A-Z]|cupti)")
"""Nothing depends on the results of these. A call of any other prints a line."""
_NAMES = re.compile(rb"\0((?:cu|nvml)[A-Z]\w+)(?=\0)")
_DEFINITION = re.compile(r"^\w[\w\s*]*?\b(\w+)\(", re.M)


class Wanted(NamedTuple):
    """What torch's files take from NVIDIA's libraries."""

    source: str
    """C, one line a function."""
    libraries: list[str]
    """Names such as `libcublas.so.13`."""


def wanted(users: Sequence[Path], sources: Iterable[Path]) -> Wanted:
    """Read the shared libraries `users` with nm and readelf; functions that the C files `sources` define are left out.

    Raises `CalledProcessError` where a file isn't a shared library.
    """
    used, given = set[str](), set[str]()
    libraries = {"libcuda.so.1", "libnvidia-ml.so.1"}
    for file in users:
        used |= _symbols(file, "--undefined-only")
        given |= _symbols(file, "--defined-only")
        header = _output("readelf", "-d", file)
        libraries |= {one[1] for one in re.finditer(r"NEEDED.*\[(.*)\]", header) if _LIBRARY.fullmatch(one[1])}
        if file.name == "libc10_cuda.so":  # it looks functions of these two libraries up by name
            used |= {one.decode() for one in _NAMES.findall(file.read_bytes())}
    defined = set(_DEFINITION.findall("\n".join(source.read_text() for source in sources)))
    rest = sorted(name for name in used - given - defined if _NVIDIA.match(name))
    lines = [f"{'QUIET' if _QUIET.match(name) else 'ALOUD'}({name})" for name in rest]
    return Wanted('#include "pretended.h"\n\n' + "\n".join(lines) + "\n", sorted(libraries))


def _symbols(file: Path, which: str) -> set[str]:
    return {line.split()[-1].split("@")[0] for line in _output("nm", "-D", which, file).splitlines() if line.split()}


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
