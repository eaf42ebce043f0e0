"""Models: recipes whose `load` brings a policy and its frozen reference into memory."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from smpo.components.locations import locate, missing
from smpo.kinds import Denoiser, Model, ModelFacts, Runtime
from smpo.registry.component import register

__all__ = ["LoRA", "Plane", "StableDiffusion"]


class LoRA(BaseModel):
    """A low-rank adapter. The reference is the same network with the adapter off."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rank: int = Field(8, ge=1, le=1024)
    """Inner dimension of the update."""
    alpha: float | None = Field(None, gt=0)
    """The update is scaled by alpha / rank; null means alpha = rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input, during the loss forward only."""
    targets: list[str] = Field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"], min_length=1)
    """Names of the linear layers that get an adapter."""
    dora: bool = False
    """Weight-decomposed adapters (DoRA)."""


@register
class StableDiffusion(Model):
    """A UNet latent-diffusion pipeline in the diffusers folder layout (SD 1.x, 2.x, SDXL; epsilon or v-prediction)."""

    use: Literal["stable-diffusion"] = "stable-diffusion"
    version: ClassVar[int] = 1

    weights: str
    """Folder, hub id (owner/name), or `smpo:...` for what ships with smpo."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    variant: str | None = None
    """Weight file variant, such as fp16."""
    resolution: int | None = Field(None, ge=8, le=4096)
    """Side of the training images in pixels; null takes the pipeline's own."""
    lora: LoRA | None = None
    """Train a low-rank adapter; null trains the whole UNet."""

    def load(self, runtime: Runtime) -> Denoiser:
        from smpo.families.loading import load_unet
        from smpo.families.lora import Adapter

        adapter = None
        if self.lora is not None:
            lora = self.lora
            adapter = Adapter(
                rank=lora.rank,
                alpha=lora.alpha if lora.alpha is not None else float(lora.rank),
                dropout=lora.dropout,
                targets=tuple(lora.targets),
                dora=lora.dora,
            )
        return load_unet(
            locate(self.weights),
            revision=self.revision,
            variant=self.variant,
            resolution=self.resolution,
            adapter=adapter,
            runtime=runtime,
        )

    def facts(self) -> ModelFacts:
        folder = Path(locate(self.weights))
        unet, scheduler = (
            _json(folder / "unet" / "config.json"),
            _json(folder / "scheduler" / "scheduler_config.json"),
        )
        vae = _json(folder / "vae" / "config.json")
        known = _PUBLISHED.get(self.weights, ModelFacts(self.weights, timesteps=None))
        scale = 2 ** (len(vae.get("block_out_channels", [1])) - 1)
        own = (
            unet["sample_size"] * scale
            if isinstance(unet.get("sample_size"), int) and vae
            else known.resolution
        )
        return ModelFacts(
            weights=self.weights,
            timesteps=scheduler.get("num_train_timesteps", known.timesteps),
            resolution=self.resolution or own,
            parameters=_count(folder / "unet") or known.parameters,
            trainable=None if self.lora else _count(folder / "unet") or known.parameters,
            forward_tflop=known.forward_tflop if (self.resolution or own) == known.resolution else None,
        )

    def check(self) -> str | None:
        return missing(self.weights)


@register
class Plane(Model):
    """The plane world's model: a small MLP that denoises points. Trains in seconds; for statistics over seeds."""

    use: Literal["plane"] = "plane"
    version: ClassVar[int] = 1

    weights: str = "smpo:worlds/plane/weights/base.safetensors"
    """The pre-trained base; `smpo:...` ships with smpo."""

    def load(self, runtime: Runtime) -> Denoiser:
        from smpo.families.plane import load_plane

        return load_plane(
            Path(locate(self.weights)),
            device=runtime.device,
            precision=runtime.precision,
            hold_reference=runtime.reference,
        )

    def facts(self) -> ModelFacts:
        count = _tensors(Path(locate(self.weights)))
        return ModelFacts(self.weights, timesteps=1000, parameters=count or None, trainable=count or None)

    def check(self) -> str | None:
        return missing(self.weights)


# Counted on meta tensors; parameter counts agree with the published ones.
_PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ModelFacts(
        "", timesteps=1000, resolution=512, parameters=859_520_964, forward_tflop=0.8033
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": ModelFacts(
        "", timesteps=1000, resolution=1024, parameters=2_567_463_684, forward_tflop=6.7612
    ),
}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(folder: Path) -> int | None:
    """Parameters in a folder's safetensors, from their headers alone."""
    return sum(_tensors(file) for file in sorted(folder.glob("*.safetensors"))) or None


def _tensors(file: Path) -> int:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
    except (OSError, ValueError, struct.error):
        return 0
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = 1
            for axis in entry["shape"]:
                size *= axis
            total += size
    return total
