"""What differs between the diffusers pipelines that smpo trains: text, sizes, and the scale of latents.

A stack is a thin adapter round a genuine pipeline object: prompts are encoded by the pipeline's own
`encode_prompt` and latents are scaled by what its `__call__` undoes, so that training and sampling cannot
drift apart. A further UNet pipeline is one more class here; nothing else knows the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from smpo.errors import RunError
from smpo.families.finite import require_finite
from smpo.imaging import Placed
from smpo.kinds import Conditioning, Placement

__all__ = ["STACKS", "LatentScale", "PipelineAdapter", "SDXLPipelineAdapter", "adapter_for"]


@dataclass(frozen=True)
class LatentScale:
    """The UNet sees (z - mean) / std · factor, z being the VAE's latents."""

    factor: float
    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0

    def apply(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Moments of the VAE's posterior to moments of what the UNet sees."""
        return (mean - self.mean) / self.std * self.factor, std / self.std * self.factor

    def undo(self, latents: Tensor) -> Tensor:
        """In the pipelines' order of operations, so that their pictures and ours are the same bytes."""
        return latents * self.std / self.factor + self.mean


class PipelineAdapter:
    """Stable Diffusion 1.x and 2.x: one text encoder; the prompt is all there is to know.

    Conditioning rows: `text` `[N, L, D]`, L the tokenizer's maximum (77).
    """

    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    cache_name: ClassVar[str] = "SDStack"
    """Part of the keys of cached encodings: another name would encode every image again."""
    tags: ClassVar[tuple[str, ...]] = ("stable-diffusion", "stable-diffusion-diffusers")
    """By which the Hub files models of this family."""
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    tokenizers: ClassVar[tuple[str, ...]] = ("tokenizer",)
    options: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    """What the pipeline's constructor wants besides the components that are loaded."""

    sizes: Literal["real", "square"] = "real"
    """SDXL's conditioning on the crop of its images."""
    compare: Literal["epsilon", "output"] = "epsilon"
    """In which space errors are compared."""
    tiled: bool = False
    """Whether large pictures are decoded in tiles."""

    def __init__(self, pipeline: Any, resolution: int) -> None:
        self.pipeline = pipeline
        self.resolution = resolution

    def rows(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Conditioning of prompts, one row each. The empty prompt is encoded like any other, as the official
        code does for dropped prompts."""
        text, _ = self._encode(prompts, guided=False)
        return {"text": text}

    def image_rows(self, placed: Sequence[Placed]) -> dict[str, Tensor]:
        """Conditioning that belongs to the images."""
        return {}

    def network_inputs(self, cond: Conditioning) -> dict[str, Any]:
        """Keyword arguments of the UNet."""
        return {"encoder_hidden_states": cond.tensors["text"]}

    def prompt_inputs(self, prompts: Sequence[str], *, guided: bool) -> dict[str, Any]:
        """Keyword arguments of the pipeline's `__call__`: embeddings, made in full precision."""
        text, empty = self._encode(prompts, guided=guided)
        return {"prompt_embeds": text, "negative_prompt_embeds": empty}

    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) at this resolution; the UNet must be able to halve it as often as it wants to."""
        unet, vae = self.pipeline.unet.config, self.pipeline.vae.config
        if unet.in_channels != vae.latent_channels:
            raise RunError(
                f"the UNet takes {unet.in_channels} channels and the VAE gives {vae.latent_channels}",
                help="inpainting and image-editing UNets can't be trained with smpo",
            )
        if self.resolution % self.step:
            raise RunError(f"a resolution of {self.resolution} doesn't suit this model: multiples of {self.step} do")
        factor = int(self.pipeline.vae_scale_factor)
        return int(unet.in_channels), self.resolution // factor, self.resolution // factor

    @property
    def step(self) -> int:
        """Pixels of which every side of a picture is a multiple."""
        halvings = len(self.pipeline.unet.config.block_out_channels) - 1
        return int(self.pipeline.vae_scale_factor) * int(2**halvings)

    def check_sizes(self, placements: Sequence[Placement]) -> None:
        """Raises `RunError` for a window of a size that the UNet can't halve as often as it wants to."""
        for size in {where.size for where in placements}:
            if size is not None:
                self.check_size(size, help=f"`--set data.buckets.step={self.step}`")

    def check_size(self, size: tuple[int, int], help: str | None = None) -> None:
        """The same for one height and width."""
        if size[0] % self.step or size[1] % self.step:
            raise RunError(
                f"pictures of {size[1]} x {size[0]} don't suit this model: multiples of {self.step} do",
                help=help,
            )

    def latent_scale(self) -> LatentScale:
        """From the VAE's latents to the UNet's: exactly what the pipeline undoes when it decodes.

        A number in the VAE's config that it ignores (`shift_factor`, here) would take the UNet out of the
        space that it knows.
        """
        return LatentScale(float(self.pipeline.vae.config.scaling_factor))

    def pictures(self, latents: Tensor) -> list[Any]:
        """PIL images from what the UNet sees, `[N, C, H, W]`, decoded as the pipeline would. Raises `RunError` for
        numbers that are not finite."""
        vae = self.pipeline.vae
        vae.use_tiling = self.tiled  # never while encoding: latents are kept, however memory was saved
        try:
            decoded = vae.decode(self.latent_scale().undo(latents), return_dict=False)[0]
        finally:
            vae.use_tiling = False
        require_finite(decoded)
        found: list[Any] = self.pipeline.image_processor.postprocess(decoded, output_type="pil")
        return found

    def _encode(self, prompts: Sequence[str], *, guided: bool) -> Any:
        from diffusers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # it has a line to say about each prompt beyond 77 tokens
        try:
            return self.pipeline.encode_prompt(
                prompt=list(prompts),
                device=self.pipeline.vae.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
            )
        finally:
            logging.set_verbosity(verbosity)


class SDXLPipelineAdapter(PipelineAdapter):
    """SDXL: two text encoders, a pooled vector, and six numbers that say how the image was cut.

    Further rows: `pooled` `[N, P]` and, with the images, `size_ids` `[N, 6]` = original height and width, top
    and left of the window, height and width of the result: the real numbers. The official SmPO code conditions
    the network on the right size without a crop for every image (method 2b, D21): `sizes = "square"`; of
    an image in a bucket, then, that it has the bucket's size.
    """

    pipeline_class = "StableDiffusionXLPipeline"
    cache_name: ClassVar[str] = "SDXLStack"
    tags = ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    options: ClassVar[Mapping[str, Any]] = {"add_watermarker": False}

    def rows(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, pooled, _ = self._encode(prompts, guided=False)
        return {"text": text, "pooled": pooled}

    def image_rows(self, placed: Sequence[Placed]) -> dict[str, Tensor]:
        told = [
            (*p.size, 0, 0, *p.size) if self.sizes == "square" else (*p.original, *p.top_left, *p.size) for p in placed
        ]
        return {"size_ids": torch.tensor(told, dtype=torch.float32)}

    def network_inputs(self, cond: Conditioning) -> dict[str, Any]:
        tensors = cond.tensors
        added = {"text_embeds": tensors["pooled"], "time_ids": tensors["size_ids"]}
        return {"encoder_hidden_states": tensors["text"], "added_cond_kwargs": added}

    def prompt_inputs(self, prompts: Sequence[str], *, guided: bool) -> dict[str, Any]:
        text, empty, pooled, pooled_empty = self._encode(prompts, guided=guided)
        return {
            "prompt_embeds": text,
            "negative_prompt_embeds": empty,
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": pooled_empty,
        }

    def latent_scale(self) -> LatentScale:
        config = self.pipeline.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            return super().latent_scale()
        device = self.pipeline.vae.device
        moments = (torch.tensor(numbers, device=device).reshape(1, -1, 1, 1) for numbers in (mean, std))
        return LatentScale(float(config.scaling_factor), *moments)


STACKS: Mapping[str, type[PipelineAdapter]] = {
    stack.pipeline_class: stack for stack in (PipelineAdapter, SDXLPipelineAdapter)
}


def adapter_for(pipeline_class: str) -> type[PipelineAdapter]:
    """The adapter for a class named in `model_index.json`."""
    try:
        return STACKS[pipeline_class]
    except KeyError:
        raise RunError(
            f"{pipeline_class or 'a folder without model_index.json'} is not a pipeline that smpo can train",
            help=f"it must be one of {', '.join(STACKS)}",
        ) from None
