"""From a folder in the diffusers layout to a genuine pipeline object, its policy and its reference.

Pieces are loaded one by one because a whole pipeline's `from_pretrained` loads parts that aren't used (a safety
checker of 1.2 GB), mixes dtypes by default, and falls back to pickles.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from smpo.errors import MachineError, RunError, readable
from smpo.families.dtypes import frozen_copy, move, store_in_half
from smpo.families.lora import Adapter, attach
from smpo.families.pipeline_adapters import PipelineAdapter, adapter_for
from smpo.maths.schedule import Compare, NoiseSchedule
from smpo.weights import content_key, model_files, opened, read_json, tokenizer_of, weight_files, weight_patterns, whole

__all__ = [
    "AS_IT_IS",
    "LoadOptions",
    "content_keys",
    "fetch_reference",
    "open_pipeline",
    "pipeline_patterns",
    "policy_and_reference",
    "schedule_of",
    "vae_place",
]

_ENCODING = "unet/1"
"""Part of `encoder_key`: raise it when pictures or prompts are encoded differently."""


@dataclass(frozen=True)
class LoadOptions:
    """Settings that override those of a folder; None leaves one as it is.

    `vae`: a folder with another autoencoder. `prediction`, `zero_terminal_snr`: what the network was really trained
    for. `compare`: in which space errors are compared, see `NoiseSchedule`. `sizes`: SDXL's conditioning on sizes,
    see `SDXLPipelineAdapter`.
    """

    vae: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    zero_terminal_snr: bool | None = None
    compare: Literal["epsilon", "output"] = "epsilon"
    sizes: Literal["real", "square"] = "real"


AS_IT_IS = LoadOptions()
CPU = torch.device("cpu")
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel(WithProjection)?",
    "tokenizer": "CLIPTokenizer(Fast)?",
    "scheduler": "[A-Za-z0-9]{1,60}Scheduler",
}
"""Which classes a `model_index.json` may name for a part."""


def pipeline_patterns(variant: str | None = None) -> list[str]:
    """Files of a repository that are read, and so fetched from the hub."""
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    weights = [pattern for part in parts for pattern in weight_patterns(part, variant=variant)]
    texts = [f"{part}/*" for part in ("tokenizer", "tokenizer_2", "scheduler")]
    return ["model_index.json", *(f"{part}/config.json" for part in parts), *texts, *weights]


def open_pipeline(
    folder: Path,
    *,
    variant: str | None,
    resolution: int | None,
    reading: LoadOptions = AS_IT_IS,
    device: torch.device = CPU,
) -> PipelineAdapter:
    """The pipeline, in the adapter for its class: VAE and text encoders frozen in float32 on `device`, the UNet on the
    CPU in the precision of its files, which are mapped into memory (`policy_and_reference` moves it).

    Raises `MachineError` for missing or unreadable pieces, `RunError` for what smpo can't train.
    """
    import diffusers
    import transformers

    index = read_json(folder / "model_index.json")
    stack_class = adapter_for(str(index.get("_class_name", "")))

    def named(part: str) -> str:
        entry = index.get(part)
        if not isinstance(entry, list) or not entry or not entry[-1]:
            raise RunError(f"{folder / 'model_index.json'} names no {part}")
        if not re.fullmatch(_CLASSES[part.removesuffix("_2")], str(entry[-1])):
            raise RunError(
                f"{folder / 'model_index.json'} makes {entry[-1]} of its {part}, which smpo does not train",
                help="a name in that file chooses code of diffusers or transformers, so only known ones are followed",
            )
        return str(entry[-1])

    def network(library: Any, part: str) -> Any:
        stored = {"variant": variant} if _has_variant(folder / part, variant) else {}
        loader = getattr(library, named(part), None)
        return whole(loader, f"the {part}", folder / part, as_stored=True, **stored)

    if variant is not None and not _has_variant(folder / "unet", variant):
        raise MachineError(f"{folder} holds no {variant} weights of the unet", help="leave `variant` out")
    parts = {"unet": network(diffusers, "unet")}
    parts["vae"] = network(diffusers, "vae") if reading.vae is None else _other_vae(reading.vae)
    parts |= {part: network(transformers, part) for part in stack_class.encoders}
    for part, encoder in zip(stack_class.tokenizers, stack_class.encoders, strict=True):
        loader, rows = getattr(transformers, named(part), None), parts[encoder].config.vocab_size
        parts[part] = tokenizer_of(loader, f"the {part}", folder / part, rows=rows)
    with opened("the scheduler", folder / "scheduler"):
        read = getattr(diffusers, named("scheduler")).from_pretrained(folder / "scheduler")
    parts["scheduler"] = _scheduler(read, reading)
    for tokenizer, encoder in zip(stack_class.tokenizers, stack_class.encoders, strict=True):
        with readable(f"the {tokenizer}", folder / tokenizer):
            longest = parts[encoder].config.max_position_embeddings  # the tokenizer's, when unset, is 1e30
            parts[tokenizer].model_max_length = min(parts[tokenizer].model_max_length, longest)
            parts[tokenizer]([""], padding="max_length", truncation=True)
    for part in ("vae", *stack_class.encoders):
        parts[part].requires_grad_(False).eval()
    extra = {name: index[name] for name in ("force_zeros_for_empty_prompt",) if name in index}
    pipeline = getattr(diffusers, stack_class.pipeline_class)(**parts, **stack_class.options, **extra)
    pipeline.set_progress_bar_config(disable=True)
    with readable("the unet", folder / "unet"):
        size = resolution or _own_resolution(pipeline)
    stack = stack_class(pipeline, size)
    stack.sizes, stack.compare = reading.sizes, reading.compare
    stack.latent_shape()  # raises before gigabytes are hashed and moved
    for part in ("vae", *stack_class.encoders):
        move(parts[part], device)
    with readable("the scheduler", folder / "scheduler"):
        type(pipeline.scheduler).from_config(pipeline.scheduler.config).set_timesteps(2)
    with readable("what encodes prompts", folder):
        stack.rows([""])
    return stack


def vae_place(folder: Path) -> Path:
    """Where an autoencoder lies: at the root of its own repository, or in a pipeline's `vae`."""
    return folder if (folder / "config.json").is_file() else folder / "vae"


def _other_vae(folder: Path) -> Any:
    """An autoencoder from elsewhere, such as sdxl-vae-fp16-fix."""
    import diffusers

    place = vae_place(folder)
    name = read_json(place / "config.json").get("_class_name", "")
    if name != "AutoencoderKL":
        raise RunError(f"{folder} holds no AutoencoderKL, which `model.vae` asks for")
    return whole(diffusers.AutoencoderKL, "the vae", place, as_stored=True)


def _scheduler(scheduler: Any, reading: LoadOptions) -> Any:
    """The folder's scheduler, told what the network was really trained for.

    Zero terminal SNR only shows when sampling starts at the last timestep, so the spacing becomes `trailing` (Lin et
    al. 2023); schedulers that don't know it are replaced by DDIM.
    """
    from diffusers import DDIMScheduler

    told: dict[str, Any] = {}
    if reading.prediction is not None:
        told["prediction_type"] = reading.prediction
    if reading.zero_terminal_snr is not None:
        told["rescale_betas_zero_snr"] = reading.zero_terminal_snr
        if reading.zero_terminal_snr:
            told["timestep_spacing"] = "trailing"
        if "rescale_betas_zero_snr" not in inspect.signature(type(scheduler)).parameters:
            scheduler = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
    return type(scheduler).from_config(scheduler.config, **told) if told else scheduler


def policy_and_reference(
    pipeline: Any,
    adapter: Adapter | None,
    half: torch.dtype | None,
    *,
    hold: bool = True,
    device: torch.device | None = None,
    rest: torch.device | None = None,
) -> nn.Module | None:
    """Make the pipeline's UNet the policy, on `device` (None: where it is); return the frozen second network that full
    fine-tuning needs, on `rest` (None: on `device`).

    `half` is the precision of both networks' products, None for float32; trained weights stay in float32.
    `hold=False` makes no second network: `fetch_reference` brings it if it is needed after all.
    """
    unet, reference = pipeline.unet, None
    if adapter is None:
        if hold:
            reference = frozen_copy(unet, rest or device, half)
        move(unet, device)
        unet.requires_grad_(True)
    else:
        # An adapter is made in the precision of its layer, and stays in float32; DoRA measures the frozen weights.
        ends = tuple(adapter.targets)
        move(unet, device, None if adapter.dora else half, wide=lambda name: name.endswith(ends))
        attach(unet, adapter)
        if half is not None and not adapter.dora:
            store_in_half(unet, half)
    unet.train()
    return reference


def fetch_reference(
    folder: Path,
    like: nn.Module,
    *,
    variant: str | None,
    half: torch.dtype | None,
    device: torch.device | None = None,
) -> nn.Module:
    """The folder's UNet, of the class of `like`, as `policy_and_reference` would have held it."""
    stored = {"variant": variant} if _has_variant(folder / "unet", variant) else {}
    network: nn.Module = whole(type(like), "the unet", folder / "unet", as_stored=True, **stored)
    move(network, device, half)
    return network.requires_grad_(False).eval()


def content_keys(
    folder: Path, stack: PipelineAdapter, *, variant: str | None, reading: LoadOptions = AS_IT_IS
) -> tuple[str, str]:
    """`(encoder_key, weights_key)`, both by content.

    The first identifies VAE, text encoders and tokenizers, with the resolution and the dtype they run in: models
    fine-tuned from one base share it. The second also identifies UNet and scheduler.
    """
    facts: dict[str, Any] = {
        "encoding": _ENCODING,
        "stack": stack.cache_name,
        "resolution": stack.resolution,
        "dtype": "float32",
    }
    if reading.sizes != "real":  # rows that are stored with the images' latents
        facts["sizes"] = reading.sizes
    vae = folder / "vae" if reading.vae is None else vae_place(reading.vae)
    places = [(vae, variant if reading.vae is None else None)]
    places += [(folder / part, variant) for part in (*stack.encoders, *stack.tokenizers)]
    encoders = content_key(facts, [file for place, kind in places for file in model_files(place, kind)])
    network = [file for part in ("unet", "scheduler") for file in model_files(folder / part, variant)]
    told = {"prediction": reading.prediction, "zero_terminal_snr": reading.zero_terminal_snr}
    known = {name: value for name, value in told.items() if value is not None}
    return encoders, content_key({"encoders": encoders, **known}, [folder / "model_index.json", *network])


def schedule_of(pipeline: Any, compare: Compare = "epsilon") -> NoiseSchedule:
    """The schedule that the folder's scheduler stands for; how the scheduler samples is its own affair."""
    try:
        return replace(NoiseSchedule.from_config(pipeline.scheduler.config), compare=compare)
    except ValueError as error:
        raise RunError(f"the model's noise schedule can't be used: {error}") from error


def _has_variant(folder: Path, variant: str | None) -> bool:
    return variant is not None and weight_files(folder, variant) != weight_files(folder)


def _own_resolution(pipeline: Any) -> int:
    size = pipeline.unet.config.sample_size
    side = size[0] if isinstance(size, list | tuple) and size else size
    if not isinstance(side, int):
        raise RunError("the UNet's configuration states no size (sample_size)", help="set `model.resolution`")
    return int(side * pipeline.vae_scale_factor)
