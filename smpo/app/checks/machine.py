"""`smpo doctor`: whether this machine has what runs need. Nothing is changed.

Every check has a state: `fine`, `note` (good to know), `warning` (works, and will hurt) or `broken`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess  # noqa: S404, RUF100
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from smpo.app.plan.disk import in_gb

__all__ = ["Check", "State", "checkup", "worst"]

State = Literal["fine", "note", "warning", "broken"]
_ORDER: tuple[State, ...] = ("fine", "note", "warning", "broken")
_LOW, _TIGHT = 1e9, 10e9
"""Bytes of free disk: below the first nothing can be saved, below the second an image model can't."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `help` is what to do about it."""

    name: str
    state: State
    message: str
    help: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def worst(checks: list[Check]) -> State:
    return max((check.state for check in checks), key=_ORDER.index, default="fine")


def checkup(runs: Path) -> list[Check]:
    """All checks. A check that fails itself is a finding, too: none may hide the others."""
    parts: dict[str, Callable[[], Iterator[Check]]] = {
        "python": _python, "packages": _packages, "plug-ins": _plugins, "torch": _torch, "driver": _driver,
        "threads": _threads, "memory": _memory, "runs": lambda: _folder("runs", runs),
        "cache": lambda: _cache(runs / "cache"), "tracking": lambda: _tracking(runs), "hub": _hub, "git": _git,
    }  # fmt: skip
    checks: list[Check] = []
    for name, check in parts.items():
        try:
            checks += check()
        except Exception as error:
            checks.append(Check(name, "warning", f"could not be looked at ({type(error).__name__}: {error})"))
    return checks


def _python() -> Iterator[Check]:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    wanted = metadata.metadata("smpo").json.get("requires_python", "")
    good = SpecifierSet(str(wanted)).contains(version, prereleases=True)
    yield Check("python", "fine" if good else "broken", f"{version} ({sys.executable}); smpo needs {wanted or 'any'}")


def _packages() -> Iterator[Check]:
    """Versions against the ranges that smpo is tested with."""
    from packaging.requirements import Requirement

    good = 0
    for one in map(Requirement, metadata.requires("smpo") or ()):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Check("packages", "broken", f"{one.name} is not installed", f"pip install '{one}'")
            continue
        if one.specifier.contains(version, prereleases=True):
            good += 1
        else:
            message = f"{one.name} {version} is outside the tested range {one.specifier}"
            yield Check("packages", "broken", message, f"pip install '{one}'")
    yield Check("packages", "fine", f"{good} packages within their tested ranges")


def _plugins() -> Iterator[Check]:
    from smpo.registry.plugins import installed

    registry, problems = installed()
    for problem in problems:
        yield Check("plug-ins", "warning", problem.message, "mend the package, or uninstall it")
    yield Check("plug-ins", "fine", f"{sum(1 for _ in registry)} components can be loaded")


def _torch() -> Iterator[Check]:
    import torch

    from smpo.app.build.allocator import allocator_settings, check_allocator, prefer_expandable_segments

    if torch.cuda.is_available():
        given = allocator_settings()
        prefer_expandable_segments()  # before the GPU is first used
        for number in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_properties(number).name
            free, total = torch.cuda.mem_get_info(number)
            build = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
            about = f"{build}: {name}, {in_gb(free)} of {in_gb(total)} free"
            if free < 0.5 * total:
                yield Check("torch", "warning", about, "another process holds most of its memory")
            else:
                yield Check("torch", "fine", about)
        # Tried out: some drivers refuse smpo's choice.
        refusals: list[str] = []
        check_allocator(refusals.append)
        if given is not None:
            yield Check("allocator", "fine", f"{given}, from the environment")
        else:
            yield Check("allocator", "note" if refusals else "fine", (refusals or ["expandable segments"])[0])
    elif torch.backends.mps.is_available():
        yield Check("torch", "fine", f"torch {torch.__version__} on Apple's GPU (mps)")
    elif torch.version.cuda and shutil.which("nvidia-smi"):
        message = f"torch {torch.__version__} for CUDA {torch.version.cuda} finds no GPU, yet nvidia-smi is here"
        remedy = "an old driver is the usual cause: install the torch wheel that fits it, from PyTorch's own index"
        yield Check("torch", "warning", message, remedy)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        yield Check("torch", "note", f"torch {torch.__version__} on the CPU ({capability}); no GPU")


def _driver() -> Iterator[Check]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    remedy = "reload the driver, or reboot"
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=15, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("driver", "warning", f"nvidia-smi does not answer ({error})", remedy)
        return
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        message = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        yield Check("driver", "warning", f"nvidia-smi says: {message[0]}", remedy)
        return
    for line in lines:
        yield Check("driver", "fine", line.strip())


def _threads() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores()
    usable = min(cores, quota) if quota else cores
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    about = f"{usable:g} usable cores, OMP_NUM_THREADS {wanted or 'not set'}"
    number = wanted.split(",")[0].strip()
    if wanted and not number.isdigit():
        yield Check("threads", "warning", f"OMP_NUM_THREADS is {wanted!r}, which is no number", "unset it")
    elif wanted and int(number) > usable:
        yield Check("threads", "warning", about, "more threads than cores are many times slower: set it to the cores")
    elif not wanted and quota and quota < cores:
        message = f"{about}, but {cores} cores are visible: torch will start {cores} threads"
        yield Check("threads", "warning", message, f"export OMP_NUM_THREADS={max(1, int(quota))}")
    else:
        yield Check("threads", "fine", about)


def _memory() -> Iterator[Check]:
    import psutil

    total = psutil.virtual_memory().total
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no container, or no limit ("max")
            total = min(total, int(Path(file).read_text(encoding="ascii")))
    message = f"{in_gb(total)} for this machine or container"
    if total < 4e9:
        yield Check("memory", "warning", message, "the tiny worlds need 2 GB, SD 1.5 some 16")
    else:
        yield Check("memory", "fine", message)


def _folder(name: str, folder: Path) -> Iterator[Check]:
    """Whether a folder, or the nearest one above it that exists, can be written and has room."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield Check(name, "broken", f"{place} is not a folder", "name another with `--runs`")
        return
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        yield Check(name, "broken", f"{place} can't be written ({error.strerror})", "name another with `--runs`")
        return
    free = shutil.disk_usage(place).free
    state: State = "broken" if free < _LOW else "warning" if free < _TIGHT else "fine"
    remedy = "" if state == "fine" else "a run of the tiny worlds takes some 50 MB, one of SDXL 30 GB and more"
    yield Check(name, state, f"{folder} on {place}: {in_gb(free)} free", remedy)


def _cache(folder: Path) -> Iterator[Check]:
    from smpo.data.cache.maintenance import entries

    if not folder.exists():
        yield Check("cache", "note", f"{folder} does not exist yet; the first run makes it")
        return
    yield from _folder("cache", folder)
    size = sum(entry.size for entry in entries(folder))
    yield Check("cache", "fine", f"{folder} holds {in_gb(size)}; `smpo cache verify {folder}` checks every file")


def _tracking(runs: Path) -> Iterator[Check]:
    from smpo.tracking.store import probe

    yield Check("tracking", *probe(runs))


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants, get_token

    offline = "offline, as HF_HUB_OFFLINE says" if constants.HF_HUB_OFFLINE else "asked when weights are missing"
    token = "a token is set" if get_token() else "no token"
    yield Check("hub", "fine", f"{offline}; {token}; downloads go to {constants.HF_HUB_CACHE}")


def _git() -> Iterator[Check]:
    if shutil.which("git"):
        yield Check("git", "fine", "locks will name the commit of your project")
    else:
        yield Check("git", "note", "git is not installed, so locks can't name the commit of your project")


def _cgroup_cores() -> float | None:
    """Cores that the container's quota grants; None without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None
