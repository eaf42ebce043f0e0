"""Build the environment of the pretended GPU: Python with torch's CUDA build, and a device that runs no kernel.

    python tools/pretended_gpu/build.py FOLDER      # then FOLDER/venv/bin/python is that Python

Everything but torch comes from the environment of the Python that runs this, so that builds take a minute and both have
the same versions. A second call does what has changed, in a second. Where the machine lacks something, one line on
stdout starts with `pretended GPU: skipped:`, and the exit status is 0; FOLDER/ready exists only after success.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # run as a script, or loaded by a test

from functions import wanted
from torch_build import (
    HEADERS,
    Missing,
    TorchBuild,
    check_machine,
    find_torch,
    install_headers,
    install_torch,
)

__all__ = ["build", "main"]

HERE = Path(__file__).resolve().parent
USERS = ("torch/lib/*.so", "torch/_C*.so")
EIGHT_BIT = "bitsandbytes/libbitsandbytes_cuda{version}.so"
"""bitsandbytes has a library for each version of CUDA."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    ready = folder / "ready"
    try:
        build(folder)
    except Missing as lack:
        ready.unlink(missing_ok=True)
        print(f"pretended GPU: skipped: {lack}")
        return 0
    ready.touch()
    return 0


def build(folder: Path) -> None:
    """Do the steps that are missing or out of date. Raises `Missing` where this machine lacks something,
    `CalledProcessError` for an error of this tool."""
    check_machine()
    folder.mkdir(parents=True, exist_ok=True)
    python = _environment(folder / "venv")
    site = folder / "venv" / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    torch = find_torch(site) or install_torch(python, site, folder)
    headers = folder / HEADERS.format(cuda=torch.cuda)
    if not headers.is_dir():
        install_headers(headers, torch)
    _attach(site)
    _device(site, headers, torch)


def _environment(venv: Path) -> Path:
    """A virtual environment of the Python that runs this, without pip; made anew where that is another version."""
    python = venv / "bin" / "python"
    version = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    if python.exists() and subprocess.run([python, "-S", "-c", version], check=False).returncode:
        shutil.rmtree(venv)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    return python


def _attach(site: Path) -> None:
    """The Python side, and the packages of the environment that runs this, behind torch on the path."""
    package = site / "pretended"
    package.mkdir(exist_ok=True)
    for source in (HERE / "python").glob("*.py"):
        shutil.copy(source, package)
    behind = [one for one in sys.path if one.endswith(("site-packages", "dist-packages"))]
    if str(site) in behind:
        raise SystemExit("build.py: this is the pretended environment; run it with the Python of another")
    shutil.copy(HERE / "hook.py", site / "pretended_hook.py")
    lines = [f"import site; site.addsitedir({path!r})" for path in behind]
    (site / "pretended.pth").write_text("\n".join([*lines, "import pretended_hook; pretended_hook.install()"]) + "\n")


def _device(site: Path, headers: Path, torch: TorchBuild) -> None:
    """Compile the C files, unless that has been done for the same files, the same torch and the same bitsandbytes."""
    package = site / "pretended"
    sources = sorted((HERE / "device").glob("*.c"))
    name = EIGHT_BIT.format(version=torch.cuda.replace(".", ""))
    eight_bit = [Path(path) / name for path in sys.path if (Path(path) / name).exists()]
    hashed = [*sources, *sorted((HERE / "device").glob("*.h")), *HERE.glob("*.py")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in hashed))
    digest.update(f"{torch} {site} {[(str(file), file.stat().st_size) for file in eight_bit]}".encode())
    stamp = package / "compiled"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    users = [file for pattern in USERS for file in sorted(site.glob(pattern))] + eight_bit
    found = wanted(users, sources)
    rest = package / "rest.c"
    rest.write_text(found.source)
    device, libraries = package / "libpretended.so", package / "lib"
    include = [f"-I{HERE / 'device'}", f"-I{headers}"]
    shared = ["gcc", "-shared", "-fPIC"]
    flags = ["-O1", "-w", "-pthread", "-std=gnu11", f"-DPRETENDED_CUDA={torch.number}", *include]
    named = ["-Wl,-soname,libpretended.so", "-o", device]
    subprocess.run([*shared, *flags, *named, *sources, rest, "-ldl"], check=True)
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.mkdir()
    linked = ["-Wl,--no-as-needed", f"-L{package}", "-l:libpretended.so", "-Wl,-rpath,$ORIGIN/.."]
    for name in found.libraries:  # each is only a name for libpretended.so
        subprocess.run(
            [*shared, f"-Wl,-soname,{name}", "-o", libraries / name, "-x", "c", "/dev/null", *linked],
            check=True,
        )
    _try(site)
    stamp.write_text(digest.hexdigest())


def _try(site: Path) -> None:
    """Import torch: the loader has to find every function, and torch the device."""
    python = site.parents[2] / "bin" / "python"
    code = "import torch; assert torch.version.cuda and torch.cuda.is_available(), torch.__file__"
    subprocess.run([python, "-c", code], check=True, env={**os.environ, "LD_BIND_NOW": "1"})


if __name__ == "__main__":
    sys.exit(main())
