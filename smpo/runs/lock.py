"""The facts that are needed to repeat a run, or to see why two runs differ. Written once, as `lock.json`.

Nothing is imported to learn its version, nothing secret is kept, and nothing that is missing (git, a package)
is an error: a fact that can't be had is null.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess  # noqa: S404, RUF100
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import smpo
from smpo.secrets import masked

__all__ = ["DECISIVE", "INFLUENCES", "RunFacts", "changes", "git_facts", "lock_facts", "read_lock"]

DECISIVE = ("spec", "data", "weights", "uses")
"""Parts of a lock that say *what* was run: where one differs, it is another experiment."""
INFLUENCES = (
    "labels",
    "smpo",
    "python",
    "machine",
    "processor",
    "devices",
    "arithmetic",
    "packages",
    "environment",
)
"""Parts that say *with what*: where one differs, the last digits may, and a result should not."""

PACKAGES = (
    "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "tokenizers",
    "huggingface_hub", "numpy", "scipy", "pillow", "pyarrow", "pydantic", "ruamel.yaml", "mlflow", "optuna",
)  # fmt: skip
VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_LAUNCH_BLOCKING",
    "NCCL_ALGO", "NCCL_PROTO", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE",
    "DIFFUSERS_ATTN_BACKEND", "PYTORCH_ENABLE_MPS_FALLBACK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION",
    "PYTHONHASHSEED",
)  # fmt: skip
"""Environment that can change a number. Both lists say what is kept, so no secret slips in."""
EXPLANATIONS = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "OMP_WAIT_POLICY",
    "SLURM_JOB_ID", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
)  # fmt: skip
"""Environment of a run: place and circumstances; two runs that differ here are comparable."""

_PROCESSOR = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
"""Lines of /proc/cpuinfo, on x86 and on ARM."""

_SOURCES = {".py", ".yaml", ".yml", ".toml", ".json"}
_HIDE = r"-*[\w.-]*(?:token|secret|password|passwd|api[-_]?key)"
_SECRET = re.compile(rf"(?i)^({_HIDE}=).+$")
_ASKS_SECRET = re.compile(rf"(?i)-{_HIDE}")
_LABELS = ("smpo.git.branch", "smpo.git.origin", "smpo.git.dirty")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run knows of itself, for its lock: hashes, seeds, and everything that it reads."""

    spec: str
    """The hash of its spec."""
    group: str = ""
    """The hash without the seed."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Digests and revisions."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Revisions or hashes by name."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """Hashes of local files with components."""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    """What smoothing made of the scores."""
    arithmetic: Mapping[str, Any] = field(default_factory=dict)
    """How torch computes: threads, TF32, instruction set."""


def lock_facts(run: RunFacts, *, devices: Sequence[str] = (), project: Path | None = None) -> dict[str, Any]:
    """Everything about now that a run depends on, ready for JSON.

    `devices`: names as the machine gives them. `project`: the folder whose git state counts, by default the working
    directory. Takes at most some seconds, all of them git's.
    """
    package = Path(smpo.__file__).parent
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **asdict(run),
        "smpo": {"version": smpo.__version__, "git": git_facts(package)},
        "project": {"folder": str(project or Path.cwd()), "git": git_facts(project or Path.cwd())},
        "command": [
            "(hidden)" if _ASKS_SECRET.fullmatch(before) else _without_secrets(word)
            for before, word in zip(["", *sys.argv], sys.argv, strict=False)
        ],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "devices": list(devices),
        "packages": {name: _version(name) for name in PACKAGES},
        "environment": _environment(VARIABLES),
        "place": _environment(EXPLANATIONS),
    }


def processor() -> str:
    """Make, family and model of the CPU. MKL, oneDNN and torch choose their kernels by them, and two kernels add the
    terms of a sum in another order. Elsewhere than on Linux the system's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.partition(":")[::2] for line in lines)
    told = {name.strip(): value.strip() for name, value in facts.items()}
    return " ".join(f"{name} {told[name]}" for name in _PROCESSOR if name in told) or platform.processor()


def git_facts(folder: Path) -> dict[str, Any] | None:
    """Commit, branch, origin, and for changed trees a hash of the changes; None where git knows nothing.

    Untracked sources count as changes; other untracked files (results, mostly) don't.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    # A package installed in a virtual environment may lie inside a repository without belonging to
    # it.
    if not _git(folder, "ls-files", "--", "."):
        return None
    diff = _git(folder, "diff", "HEAD", "--binary") or ""
    others = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--full-name", "--", ":/") or ""
    untracked = [name for name in others.split("\0") if Path(name).suffix in _SOURCES]
    digest = hashlib.sha256(diff.encode())
    top = Path((_git(folder, "rev-parse", "--show-toplevel") or "").strip())
    for name in sorted(untracked)[:1000]:
        digest.update(name.encode())
        path = top / name
        if path.is_file() and path.stat().st_size < 2**20:
            digest.update(path.read_bytes())
    dirty = bool(diff or untracked)
    return {
        "commit": commit.strip(),
        "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip() or None,
        "origin": _without_secrets((_git(folder, "remote", "get-url", "origin") or "").strip()) or None,
        "dirty": dirty,
        "changes": digest.hexdigest() if dirty else None,
    }


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], parts: Sequence[str] = (*DECISIVE, *INFLUENCES)
) -> list[str]:
    """What differs between two locks and could change a result, in words: `packages.torch: 2.9.0 → 2.10.0`.

    A part that one of them doesn't have (an older smpo wrote it) isn't compared; nor are names of branches.
    """
    found = []
    for part in parts:
        if part not in before or part not in after:
            continue
        old, new = _leaves(part, before[part]), _leaves(part, after[part])
        found += [
            f"{name}: {old.get(name)} → {new.get(name)}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and not name.startswith(_LABELS)
        ]
    return found


def read_lock(path: Path) -> dict[str, Any]:
    """A `lock.json`; empty where there is none or where it can't be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {path: leaf for key, part in value.items() for path, leaf in _leaves(f"{name}.{key}", part).items()}


def _environment(names: Sequence[str]) -> dict[str, str]:
    return {name: _without_secrets(os.environ[name]) for name in names if name in os.environ}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _without_secrets(text: str) -> str:
    return masked(_SECRET.sub(r"\1(hidden)", text))


def _git(folder: Path, *words: str) -> str | None:
    """Output of git, or None when it is missing, fails, or takes too long. Never takes git's locks."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else None
