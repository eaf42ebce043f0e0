"""From a name in a spec to a model ready to be trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from smpo.errors import MachineError
from smpo.families.lora import Adapter
from smpo.families.networks import HALF, Arithmetic, Networks, Precision
from smpo.families.pipelines import (
    content_keys,
    fetch_reference,
    open_stack,
    pipeline_patterns,
    policy_and_reference,
)
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Runtime
from smpo.weights import locate

__all__ = ["load_unet"]


def load_unet(
    path_or_id: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
    adapter: Adapter | None = None,
    runtime: Runtime,
    resolution: int | None = None,
    train_precision: Precision | None = None,
) -> UNetDenoiser:
    """Bring a pipeline folder or hub repository into memory, ready to be trained.

    `variant` chooses among stored weights (`fp16`); arithmetic is chosen by `train_precision`, by default
    `runtime.precision`. `resolution` defaults to the UNet's own. Raises `MachineError` when weights aren't
    here, `RunError` for pipelines that aren't UNet text-to-image models or sizes that don't fit.
    """
    device, precision = torch.device(runtime.device), train_precision or runtime.precision
    if precision == "fp16" and device.type == "cpu":
        raise MachineError("fp16 is for GPUs: training scales its gradients there", help="use fp32 or bf16")
    folder = locate(path_or_id, what="the model", patterns=pipeline_patterns(variant), revision=revision)
    stack = open_stack(folder, variant=variant, resolution=resolution)
    half, hold = HALF.get(precision), runtime.reference
    if runtime.vae_slicing if runtime.vae_slicing is not None else stack.resolution >= 512:
        stack.pipeline.vae.enable_slicing()  # a batch of pictures decoded at once fills a GPU
    reference = policy_and_reference(stack.pipeline, adapter, half, hold=hold)
    later = partial(fetch_reference, folder, stack.pipeline.unet, variant=variant, half=half)
    if runtime.gradient_checkpointing:
        stack.pipeline.unet.enable_gradient_checkpointing()
    stack.pipeline.to(device)
    networks = Networks(
        stack.pipeline.unet,
        reference,
        arithmetic=Arithmetic(device, precision, runtime.batch),
        fetch=None if hold or adapter is not None else later,
        offload=runtime.offload_reference,
    )
    keys = content_keys(folder, stack, variant=variant)
    return UNetDenoiser(stack, networks, keys=keys, source=str(path_or_id))
