"""Run the numerical tests under several instruction sets and thread counts, and write how many pass under each.

    python benchmarks/machines.py                        # writes benchmarks/results/machines.json
    python benchmarks/machines.py --only "MKL: AVX2" --out /dev/null

Three libraries compute a run's sums on a CPU, and each has kernels for several instruction sets: MKL (matrix
products), oneDNN (convolutions) and ATen (everything else). A variable of each holds newer kernels back. A probe
computes some sums first: where none of them changes, the setting has no effect on this processor and its tests aren't
run again.

MKL has Intel's kernels on Intel's processors only and ignores `MKL_ENABLE_INSTRUCTIONS` elsewhere. Where there is a C
compiler, a library of one function, preloaded, selects them on other makes too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "machines.json"

TESTS = (
    *(f"tests/{folder}" for folder in ("maths", "golden", "rewards", "worlds", "engine", "components", "evaluation")),
    "tests/families",
    *(f"tests/app/test_{name}.py" for name in ("objectives_live", "buckets_live")),
    *(f"tests/cli/test_{name}.py" for name in ("memory", "run")),
    "tests/pipelines/test_official.py",
    "tests/devices/test_invariance.py",
)
"""Folders and files with tests that compare sums."""

PACKAGES = ("torch", "numpy", "diffusers", "transformers", "pillow")

AS_INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"

PROBE = """
import hashlib, json, torch
from torch.nn import functional
def made(*shape):
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 7919) % 2003).float().div(2003).sub(0.5).reshape(shape)
def name(*found):
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in found)).hexdigest()[:12]
rows, weight, picture = made(64, 700), made(96, 700), made(8, 32, 16, 16)
print(json.dumps({
    "matrix products": name(functional.linear(rows, weight), rows @ weight.T.contiguous(), rows[:1] @ rows.T),
    "convolutions": name(functional.conv2d(picture, made(32, 32, 3, 3), padding=1)),
    "the rest": name(functional.group_norm(picture, 8), rows.softmax(1), rows.sum(1)),
}))
"""


@dataclass(frozen=True)
class Setting:
    """Environment variables and pytest's options with which the tests run; `intel`: it is about MKL's kernels for
    Intel's processors."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    intel: bool = False
    options: tuple[str, ...] = ()


TWO = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"}
APART = (
    "tests/devices/test_invariance.py::test_bit_for_bit",
    "tests/devices/test_invariance.py::test_encoding_in_other_portions_is_the_same_to_rounding",
    "tests/families/test_unet_artefacts.py::test_strangers_draw_our_pictures_from_what_we_save",
)
"""Tests that compare this process's numbers with another's."""
SETTINGS = (
    Setting("as it is"),
    Setting("two threads", TWO),
    *(Setting(f"MKL: {one}", {"MKL_ENABLE_INSTRUCTIONS": one}, True) for one in ("SSE4_2", "AVX2", "AVX512")),
    Setting("MKL: COMPATIBLE", {"MKL_CBWR": "COMPATIBLE"}),
    *(Setting(f"oneDNN: {one}", {"ONEDNN_MAX_CPU_ISA": one}) for one in ("SSE41", "AVX2")),
    *(Setting(f"ATen: {one}", {"ATEN_CPU_CAPABILITY": one}) for one in ("default", "avx2")),
    Setting("all three: an old CPU", OLD, True),
    Setting("an old CPU, two threads", {**OLD, **TWO}, True),
    # Its plug-in reaches one process.
    Setting("imaginary", options=("-p", "tests.rounding", *(f"--deselect={test}" for test in APART))),
)


def rows(settings: list[Setting], tests: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each setting: what changes under it, and how many tests passed, failed and were skipped."""
    library = as_intel(folder)
    native = probed(environment(Setting("as it is"), None))
    for setting in settings:
        variables = environment(setting, library)
        row: dict[str, Any] = {
            "setting": setting.name,
            "variables": setting.variables,
            "options": setting.options,
        }
        row["preloaded"] = setting.intel and library is not None
        row["changes"] = [name for name, found in probed(variables).items() if found != native[name]]
        if setting.variables.keys() - TWO.keys() and not row["changes"]:
            yield {**row, "ran": False}
        else:
            yield {**row, "ran": True, **tested(variables, [*setting.options, *tests], folder / "report.xml")}


def environment(setting: Setting, library: Path | None) -> dict[str, str]:
    """This process's, with one thread unless the setting has more, and without what a shell may have set."""
    names = ("ATEN_CPU_CAPABILITY", "MKL_", "ONEDNN_", "OMP_", "DNNL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    preload = {"LD_PRELOAD": str(library)} if setting.intel and library else {}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **preload, **setting.variables}


def as_intel(folder: Path) -> Path | None:
    """The library that selects MKL's kernels for Intel's processors; None on these, and without a C compiler."""
    facts, compiler = Path("/proc/cpuinfo"), shutil.which("cc")
    if compiler is None or not facts.exists() or "GenuineIntel" in facts.read_text():
        return None
    source, library = folder / "intel.c", folder / "intel.so"
    source.write_text(AS_INTEL)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def probed(variables: dict[str, str]) -> dict[str, str]:
    """A name for the bits of some sums of each kind."""
    done = subprocess.run([sys.executable, "-c", PROBE], env=variables, check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def tested(variables: dict[str, str], what: list[str], report: Path) -> dict[str, Any]:
    """Counts, seconds, and the names of tests that failed. Raises RuntimeError when pytest itself couldn't run."""
    report.unlink(missing_ok=True)
    words = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", f"--junitxml={report}")
    began, spent = time.perf_counter(), _spent()
    done = subprocess.run([sys.executable, "-m", "pytest", *words, *what], cwd=ROOT, env=variables, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with code {done.returncode}")
    seconds = {"seconds": round(time.perf_counter() - began), "cpu_seconds": round(_spent() - spent)}
    return {**counted(report), **seconds}


def _spent() -> float:
    """Seconds of CPU time of processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def counted(report: Path) -> dict[str, Any]:
    """The counts of a JUnit report."""
    failed, skipped, every = [], 0, 0
    for case in ElementTree.parse(report).iter("testcase"):
        every += 1
        skipped += case.find("skipped") is not None
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
    return {"passed": every - skipped - len(failed), "failed": failed, "skipped": skipped}


def machine() -> dict[str, Any]:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": model or platform.processor(),
        "instruction sets": [one for one in ("sse4_2", "avx2", "avx512f", "amx_tile") if one in flags],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    if not row["ran"]:
        return f"{row['setting']:28} no sum changes on this processor"
    counts = {**row, "failed": len(row["failed"])}
    numbers = " ".join(f"{counts[name]:6} {name}" for name in ("passed", "failed", "skipped", "cpu_seconds"))
    changed = f", other {' and '.join(row['changes'])}" if row["changes"] else ""
    return "\n".join([f"{row['setting']:28} {numbers}{changed}", *row["failed"]])


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in SETTINGS]
    words.add_argument("--only", action="append", choices=names, help="a setting; may be repeated")
    words.add_argument("--out", type=Path, default=RESULT)
    words.add_argument("tests", nargs="*", help="paths for pytest; the numerical tests by default")
    options = words.parse_args()
    tests = options.tests or list(TESTS)
    settings = [one for one in SETTINGS if not options.only or one.name in options.only]
    found: list[dict[str, Any]] = []
    told = {"machine": machine(), "tests": tests, "settings": found}
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(settings, tests, Path(folder)):
            found.append(row)
            options.out.write_text(json.dumps(told, indent=1) + "\n")  # so far: a run may be cut off
            print(line(row), flush=True)
    print("\n".join(line(row) for row in found))
    return int(any(row.get("failed") for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
