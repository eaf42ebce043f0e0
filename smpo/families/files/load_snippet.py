"""Python lines that load the base of an adapter in plain diffusers: the same weights, autoencoder and noise schedule.

An adapter's folder has none of these, and another autoencoder or prediction type gives other pictures, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LoadSnippet", "load_snippet"]

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
