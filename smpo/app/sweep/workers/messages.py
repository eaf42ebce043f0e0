"""Messages between a sweep and its trials, as small JSON files: the order, figures at rungs, verdicts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["TrialJob", "read_json", "rung_file", "verdict_file", "write_json"]


@dataclass(frozen=True)
class TrialJob:
    """The order for a trial. Everything is plain data, since it travels as JSON."""

    spec: str
    answer: str
    """The file that the trial writes: state, folder, message."""
    spec_hash: str
    """Identity that it must arrive at: a file that was edited meanwhile is another sweep."""
    trial: dict[str, Any] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    rungs: list[int] = field(default_factory=list)
    rung_prompts: int | None = None
    """0 leaves the evaluation out: held-out pairs alone count."""
    rung_steps: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def rung_file(folder: Path, step: int) -> Path:
    return folder / "rungs" / f"{step:06d}.json"


def verdict_file(folder: Path, step: int) -> Path:
    return folder / "rungs" / f"{step:06d}.verdict.json"


def write_json(path: Path, value: Any) -> None:
    """A reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(value), encoding="utf-8")
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Empty where there is nothing to read yet."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
