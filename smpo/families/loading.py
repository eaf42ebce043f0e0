"""From a name in a spec to a model ready to be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smpo.errors import MachineError
from smpo.families.files.saved_folder import load_snippet
from smpo.families.files.single_file import unpacked
from smpo.families.lora import Adapter
from smpo.families.pipelines import (
    AS_IT_IS,
    LoadOptions,
    content_keys,
    fetch_reference,
    open_pipeline,
    pipeline_patterns,
    policy_and_reference,
    vae_place,
)
from smpo.families.policy_reference import HALF, Arithmetic, PolicyAndReference
from smpo.families.recompute import checkpoint
from smpo.families.speed import Speed
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Runtime
from smpo.weights import commit_of, is_weight_file, locate, weight_patterns

__all__ = ["Extras", "load_unet"]


@dataclass(frozen=True)
class Extras:
    """What lies elsewhere than the weights: `config` and `original_config` belong to single files (see
    `single_file.unpacked`), `vae` is a folder or hub id with another autoencoder."""

    config: str | None = None
    original_config: str | None = None
    vae: str | None = None
    vae_revision: str | None = None


def load_unet(
    path_or_id: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
    adapter: Adapter | None = None,
    runtime: Runtime,
    resolution: int | None = None,
    extras: Extras = Extras(),
    reading: LoadOptions = AS_IT_IS,
) -> UNetDenoiser:
    """Bring a pipeline folder, a hub repository or a single file into memory, ready to be trained.

    `variant` chooses among stored weights (`fp16`). `resolution` defaults to the UNet's own. Raises
    `MachineError` when weights aren't here, `RunError` for pipelines that aren't UNet text-to-image models or sizes
    that don't fit.
    """
    device, precision = torch.device(runtime.device), runtime.precision
    if precision == "fp16" and device.type == "cpu":
        raise MachineError("fp16 is for GPUs: training scales its gradients there", help="use fp32 or bf16")
    origin: dict[str, str] = {}
    if single := is_weight_file(path_or_id):
        file = Path(path_or_id).expanduser()
        folder = unpacked(file, config=extras.config, original=extras.original_config, cache=runtime.cache)
    else:
        patterns = pipeline_patterns(variant)
        folder = locate(path_or_id, what="the model", patterns=patterns, revision=revision)
        _note(origin, "model", folder)
    other = None
    if extras.vae is not None:
        patterns = [pattern for part in ("", "vae") for pattern in weight_patterns(part)]
        patterns += ["config.json", "vae/config.json"]
        vae = locate(extras.vae, what="the vae", patterns=patterns, revision=extras.vae_revision)
        _note(origin, "vae", vae)
        reading, other = replace(reading, vae=vae), (extras.vae, extras.vae_revision, vae_place(vae) != vae)
    stack = open_pipeline(folder, variant=variant, resolution=resolution, reading=reading, device=device)
    half, hold = HALF.get(precision), runtime.reference
    if runtime.vae_slicing if runtime.vae_slicing is not None else stack.resolution >= 512:
        stack.pipeline.vae.enable_slicing()  # a batch of pictures decoded at once fills a GPU
    stack.tiled = runtime.vae_tiling
    rest = torch.device("cpu") if runtime.offload_reference else device
    reference = policy_and_reference(stack.pipeline, adapter, half, hold=hold, device=device, rest=rest)
    later = partial(fetch_reference, folder, stack.pipeline.unet, variant=variant, half=half, device=rest)
    attending = Speed(attention=runtime.attention).attending
    checkpoint(stack.pipeline.unet, runtime.gradient_checkpointing, attending)
    networks = PolicyAndReference(
        stack.pipeline.unet,
        reference,
        arithmetic=Arithmetic(device, precision, runtime.batch),
        fetch=None if hold or adapter is not None else later,
        offload=runtime.offload_reference,
        speed=Speed(runtime.compile, runtime.channels_last, runtime.attention),
        shadow=runtime.shadow_weights,
    )
    keys = content_keys(folder, stack, variant=variant, reading=reading)
    scheduler = stack.pipeline.scheduler
    opening = load_snippet(
        path_or_id,
        revision,
        single=stack.pipeline_class if single else None,
        vae=other,
        scheduler=scheduler if _unlike(scheduler, reading, single) else None,
    )
    return UNetDenoiser(stack, networks, keys=keys, opening=opening, origin=origin)


def _unlike(scheduler: Any, reading: LoadOptions, single: bool) -> bool:
    """Whether the base alone has another schedule: one that was corrected here, or read from a file."""
    corrected = reading.prediction is not None or reading.zero_terminal_snr is not None
    special = scheduler.config.prediction_type != "epsilon" or scheduler.config.get("rescale_betas_zero_snr")
    return bool(corrected or (single and special))


def _note(origin: dict[str, str], part: str, folder: Path) -> None:
    if commit := commit_of(folder):
        origin[part] = commit
