"""Adapters of other tools, brought into a pipeline completely or not at all.

diffusers leaves out the tensors of a LoRA that fit no layer, with a warning at most, and the base is then judged under
the adapter's name. Here the file's tensors are counted against those that arrived.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from smpo.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["adapter_file", "load_adapter"]

DIFFUSERS, PEFT = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
_NETWORKS = ("unet", "text_encoder", "text_encoder_2")
_BASE = "a LoRA is for the base that it was trained on: name its spec with `--spec`"


def adapter_file(folder: Path) -> Path | None:
    """The LoRA in a folder: diffusers' name, PEFT's, else the only safetensors file. Raises `RunError` for several
    LoRAs."""
    from smpo.families.files.checkpoint_layouts import is_lora
    from smpo.weights import read_shapes

    for name in (DIFFUSERS, PEFT):
        if (folder / name).is_file():
            return folder / name
    if (folder / "model_index.json").exists() or (folder / "config.json").exists():
        return None
    found = [file for file in sorted(folder.glob("*.safetensors")) if is_lora(read_shapes(file))]
    if len(found) > 1:
        raise RunError(f"{folder} holds {len(found)} LoRAs", help=f"name one of them, such as {found[0]}")
    return found[0] if found else None


def load_adapter(pipeline: Any, file: Path) -> None:
    """Put the LoRA of `file` over the networks of `pipeline`: names of diffusers, kohya's scripts, or PEFT.

    Raises `RunError` where a tensor fits no layer of these networks, is not finite, or where its scale is unknown.
    """
    tensors = _read(file)
    if bad := next((name for name, value in tensors.items() if not value.isfinite().all()), None):
        raise RunError(f"{file}: `{bad}` holds numbers that are not finite", help="its training had diverged")
    peft = any(name.startswith(_PEFT_PREFIX) for name in tensors)
    try:
        if peft:
            pipeline.load_lora_weights(_from_peft(tensors, file))
        else:  # from the file, whose header holds the scale
            pipeline.load_lora_weights(file.parent, weight_name=file.name)
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"{file} doesn't fit the spec's model: {reason[0]}", help=_BASE) from error
    wanted = [name for name in tensors if not name.endswith(".alpha")]
    arrived = sum(
        ".lora_" in name
        for network in _NETWORKS
        if getattr(pipeline, network, None) is not None
        for name, _ in getattr(pipeline, network).named_parameters()
    )
    if arrived != len(wanted):
        raise RunError(
            f"{file} doesn't fit the spec's model: of its {len(wanted)} tensors {min(arrived, len(wanted))} fit a layer"
            f"{_example(pipeline, wanted)}",
            help=_BASE,
        )


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} can't be read: {error}", help="fetch the file again") from error


def _from_peft(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """diffusers' names, with PEFT's scale alpha / rank (Kalajdzievski 2023: alpha / sqrt(rank)) in the weights B."""
    path = file.parent / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        help = "PEFT's `save_pretrained` writes it; without it the scale of the adapter is unknown"
        raise RunError(f"{file} needs `adapter_config.json` beside it, with `r` and `lora_alpha`", help=help) from error
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise RunError(f"{path}: ranks or scales that differ between layers can't be read", help="merge the adapter")
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return {
        f"unet.{name.removeprefix(_PEFT_PREFIX)}": value * scale if ".lora_B" in name else value
        for name, value in tensors.items()
    }


def _example(pipeline: Any, names: list[str]) -> str:
    """A tensor whose layer doesn't exist, for names that say which layer they are for."""
    modules = {
        f"{network}.{name}"
        for network in _NETWORKS
        if getattr(pipeline, network, None) is not None
        for name, _ in getattr(pipeline, network).named_modules()
    }
    for name in names:
        module = name.replace(_PEFT_PREFIX, "unet.").split(".lora")[0]
        if "." in module and module not in modules:
            return f"; `{name}` fits none"
    return ""
