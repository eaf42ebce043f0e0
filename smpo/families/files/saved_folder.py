"""Folders that others open: written whole, without traces of the machine, and the Python lines that load them.

An adapter's folder has no autoencoder and no noise schedule, and another one would give other pictures, or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.atomic import atomic_folder
from smpo.errors import RunError

__all__ = ["LoadSnippet", "load_snippet", "replaced_folder", "without_paths"]

_MARKS = ("model_index.json", "pytorch_lora_weights.safetensors", "model.safetensors")
_TRACES = ("_name_or_path", "name_or_path", "_commit_hash")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when the block ends well.

    After an error `folder` is as it was. Its earlier content is deleted once the new one is complete. Raises `RunError`
    where that isn't a saved model: the path may be mistyped. Leftovers of a killed process are deleted too.
    """
    if folder.exists() and any(folder.iterdir()) and not any((folder / mark).exists() for mark in _MARKS):
        raise RunError(f"{folder} exists and is not a saved model", help="choose a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        yield fresh


def without_paths(folder: Path) -> None:
    """Remove from all JSON files the paths that the parts were loaded from."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and any(key in content for key in _TRACES):
            kept = {key: value for key, value in content.items() if key not in _TRACES}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_SCHEDULE = ("prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "clip_sample")


@dataclass(frozen=True)
class LoadSnippet:
    """`names` of diffusers, and `lines` that leave the base in `pipe`."""

    names: tuple[str, ...]
    lines: tuple[str, ...]


def load_snippet(
    place: str | Path,
    revision: str | None,
    *,
    single: str | None = None,
    vae: tuple[str, str | None, bool] | None = None,
    scheduler: Any = None,
) -> LoadSnippet:
    """Lines for `place`, a folder, a hub id or a file.

    `single`: the pipeline's class where it is one file. `vae`: where another autoencoder lies, its revision, and
    whether it is part of a pipeline there. `scheduler`: the pipeline's, where it isn't the one that `place` brings.
    """
    names = [single or "DiffusionPipeline"]
    how = "from_single_file" if single else "from_pretrained"
    lines = [f"pipe = {names[0]}.{how}({str(place)!r}{_pinned(revision)}, dtype=torch.float32)"]
    if vae is not None:
        other, pin, part = vae
        inside = ", subfolder='vae'" * part
        names.append("AutoencoderKL")
        lines.append(f"pipe.vae = AutoencoderKL.from_pretrained({other!r}{inside}{_pinned(pin)}, dtype=torch.float32)")
    if scheduler is not None:
        name = type(scheduler).__name__
        names.append(name)
        told = _told(scheduler.config)
        lines.append(f"pipe.scheduler = {name}.from_config(pipe.scheduler.config{told})")
    return LoadSnippet(tuple(names), tuple(lines))


def _pinned(revision: str | None) -> str:
    return f", revision={revision!r}" if revision else ""


def _told(config: Mapping[str, Any]) -> str:
    return "".join(f", {name}={config[name]!r}" for name in _SCHEDULE if name in config)
