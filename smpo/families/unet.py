"""Latent diffusion with a UNet: SD 1.5, SD 2, SDXL and whatever else lies in their folder layout.

Everything is a genuine diffusers or transformers class; here they become a `kinds.Denoiser`. How policy and reference
are kept alike is in `policy_reference`, what differs between the pipelines in `pipeline_adapters`, how they are found
in `loading`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from smpo.families.files.saved_folder import LoadSnippet, load_snippet, replaced_folder, without_paths
from smpo.families.lora import save_adapter
from smpo.families.operator_parity import contiguous
from smpo.families.pipeline_adapters import PipelineAdapter
from smpo.families.pipelines import schedule_of
from smpo.families.policy_reference import PolicyAndReference
from smpo.imaging import Placed, in_range, place
from smpo.imaging.transfer import stack_on, to_cpu
from smpo.kinds import Conditioning, Placement
from smpo.weights import quiet

if TYPE_CHECKING:
    from PIL.Image import Image

    from smpo.kinds import Picture

__all__ = ["UNetDenoiser"]


class UNetDenoiser:
    """A `kinds.Denoiser` round a diffusers pipeline.

    Encoders run in float32: their output is computed once and cached, so rounding there would be for good.
    """

    def __init__(
        self,
        stack: PipelineAdapter,
        networks: PolicyAndReference,
        *,
        keys: tuple[str, str],
        opening: LoadSnippet,
        origin: Mapping[str, str],
    ) -> None:
        self.networks = networks
        self.device = networks.arithmetic.device
        self.schedule = schedule_of(stack.pipeline, stack.compare).to(self.device)
        self.encoder_key, self.weights_key = keys
        self.opening = opening
        """The class and the Python lines that load the base."""
        self.origin = origin
        self.stack = stack
        self.tags = stack.tags
        self.network: nn.Module = networks.trained
        """The trained network itself, never wrapped."""
        self.policy: nn.Module = self.network
        self.latent_shape = stack.latent_shape()

    # ---- encoding

    def encode_pictures(self, pictures: Sequence[Picture], placements: Sequence[Placement]) -> dict[str, Tensor]:
        """`mean`, `std` `[N, C, H, W]` of the scaled latents, and the images' conditioning rows, on the CPU.

        `pictures` are PIL images. Nothing here has gradients: all encoders are frozen.
        """
        self.stack.check_sizes(placements)
        return self.encode_inputs(
            [self.preprocess(picture, where) for picture, where in zip(pictures, placements, strict=True)]
        )

    def preprocess(self, picture: Picture, placement: Placement) -> Placed:
        """A picture laid onto the window that the VAE sees, on the CPU. Raises `RunError` for a size of window that the
        UNet can't halve as often as it wants to."""
        if placement.size is not None:
            self.stack.check_sizes([placement])
        return place(cast("Image", picture), self.stack.resolution, placement)

    def encode_inputs(self, inputs: Sequence[Placed]) -> dict[str, Tensor]:
        """What `encode_pictures` returns, of what `preprocess` returned."""
        vae, scale = self.stack.pipeline.vae, self.stack.latent_scale()
        moments = []
        for part in _split(inputs, self.networks.arithmetic.batch):
            bytes_ = stack_on(self.device, [one.bytes for one in part])  # a quarter of the way in floats
            posterior = vae.encode(in_range(bytes_)).latent_dist
            moments.append(to_cpu(*scale.apply(posterior.mean, posterior.std)))
        means, stds = zip(*moments, strict=True)
        return {"mean": torch.cat(means), "std": torch.cat(stds), **self.stack.image_rows(inputs)}

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of conditioning (`text` `[N, 77, D]`, ...) on the CPU; long prompts are cut as in sampling."""
        parts = [
            {name: rows.cpu() for name, rows in self.stack.rows(part).items()}
            for part in _split(prompts, self.networks.arithmetic.batch)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    # ---- the network

    def predict(
        self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False, inverting: bool = False
    ) -> Tensor:
        """The network's output, float32 `[N, C, H, W]`.

        With gradients the (perhaps wrapped) `policy` runs. Without them, as in an inversion, the bare network
        does, with dropout off: no synchronisation of gradients to prepare, and no noise on the path.
        """
        inputs, networks = self.stack.network_inputs(contiguous(cond)), self.networks
        if inverting:
            with networks.inverting(reference=reference) as network:
                return networks.forward(network, x, t, inputs)
        if not reference and torch.is_grad_enabled():
            start = x.detach().requires_grad_() if networks.input_gradients else x
            return networks.forward(self.policy, start, t, inputs)
        with networks.compared(reference=reference) as network:
            return networks.forward(network, x.detach().requires_grad_(), t, inputs).detach()

    # ---- sampling

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
        size: tuple[int, int] | None = None,
    ) -> list[Picture]:
        """PIL images from the pipeline's own `__call__`, with the folder's scheduler.

        Starting noise comes from a CPU generator for each image, so it is the same on every device. In
        float32 the images are those that plain diffusers draws from the saved folder. `size`: height and width; SDXL is
        conditioned on this size without a crop, as in its pipeline. Raises `RunError` for a size that the UNet can't
        halve often enough.
        """
        pipeline, side = self.stack.pipeline, self.stack.resolution
        height, width = size or (side, side)
        self.stack.check_size((height, width))
        pictures: list[Picture] = []
        with self.networks.eval_network(reference=reference) as network:
            pipeline.unet = network
            try:
                for rows in _split(range(len(prompts)), self.networks.arithmetic.batch):
                    inputs = self.stack.prompt_inputs([prompts[i] for i in rows], guided=guidance > 1)
                    with self.networks.arithmetic.autocast():  # the network alone: pictures and prompts stay in float32
                        latents = pipeline(
                            **inputs,
                            generator=[torch.Generator("cpu").manual_seed(seeds[i]) for i in rows],
                            guidance_scale=guidance,
                            num_inference_steps=steps,
                            height=height,
                            width=width,
                            output_type="latent",
                        ).images
                    pictures += self.stack.pictures(latents.float())
            finally:
                pipeline.unet = self.network
        return pictures

    # ---- what is kept

    def save(self, folder: Path) -> list[str]:
        """A whole pipeline folder in float32, or a LoRA; returns lines of Python that load it.

        Half precision would round much of a short fine-tuning away: updates are a thousandth of the weights.
        """
        pipeline = self.stack.pipeline
        with replaced_folder(folder) as fresh:
            if self.networks.shared:
                save_adapter(pipeline, self.network, fresh, side=self.stack.resolution)
            else:
                with quiet():
                    pipeline.save_pretrained(fresh, safe_serialization=True)
                without_paths(fresh)
        if self.networks.shared:
            opening, then = self.opening, [f"pipe.load_lora_weights({str(folder)!r})"]
        else:
            opening, then = load_snippet(folder, None), []
        return ["import torch", f"from diffusers import {', '.join(opening.names)}", *opening.lines, *then]


def _split(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
