"""Latent diffusion with a UNet: SD 1.5, SD 2, SDXL and whatever else lies in their folder layout.

Everything is a genuine diffusers or transformers class. What smpo adds is the discipline that a preference
loss needs: the loss looks at the *difference* between policy and reference and multiplies it by thousands, so
both run through the same kernels in the same precision (the official code runs one in fp16 and one under
autocast, and starts from noise instead of ln 2: method 2b, D22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from smpo.errors import MachineError, RunError
from smpo.families.artefacts import replaced_folder, without_paths
from smpo.families.lora import Adapter, adapter_off, save_adapter
from smpo.families.pipelines import (
    content_keys,
    fetch_reference,
    open_stack,
    pipeline_patterns,
    policy_and_reference,
    schedule_of,
)
from smpo.families.stacks import SDStack
from smpo.imaging import place
from smpo.kinds import Conditioning, Placement, Runtime
from smpo.weights import locate, quiet

if TYPE_CHECKING:
    from PIL.Image import Image

    from smpo.kinds import Picture

__all__ = ["Adapter", "Arithmetic", "UNetDenoiser", "load_unet"]

Precision = Literal["fp32", "bf16", "fp16"]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """In which precision both networks run."""

    device: torch.device
    precision: Precision
    batch: int


class UNetDenoiser:
    """A `kinds.Denoiser` round a diffusers pipeline.

    With an adapter the reference is the policy's network with the adapter off; without one it is a second,
    frozen network. When training doesn't ask it, `fetch` brings it for whoever asks later. Encoders run in float32:
    their output is computed once and cached, so rounding there would be for good.
    """

    def __init__(
        self,
        stack: SDStack,
        *,
        reference: nn.Module | None,
        arithmetic: Arithmetic,
        keys: tuple[str, str],
        source: str,
        fetch: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.schedule = schedule_of(stack.pipeline).to(arithmetic.device)
        self.device = arithmetic.device
        self.encoder_key, self.weights_key = keys
        self.source = source
        self.stack = stack
        self.network: nn.Module = stack.pipeline.unet
        """The trained network itself, never wrapped."""
        self.policy: nn.Module = self.network
        self.latent_shape = stack.latent_shape()
        self._reference, self._fetch = reference, fetch
        self._adapted = reference is None and fetch is None
        self._arithmetic = arithmetic
        self._dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.network.modules())

    # ---- encoding

    def encode_pictures(
        self, pictures: Sequence[Picture], placements: Sequence[Placement]
    ) -> dict[str, Tensor]:
        """`mean`, `std` `[N, C, H, W]` of the scaled latents, and the images' conditioning rows, on the CPU.

        `pictures` are PIL images. Nothing here has gradients: all encoders are frozen.
        """
        vae, scale, resolution = self.stack.pipeline.vae, self.stack.latent_scale(), self.stack.resolution
        images = cast("Sequence[Image]", pictures)
        placed = [place(p, resolution, where) for p, where in zip(images, placements, strict=True)]
        means, stds = [], []
        for part in _split(placed, self._arithmetic.batch):
            posterior = vae.encode(torch.stack([p.pixels for p in part]).to(self.device)).latent_dist
            mean, std = scale.apply(posterior.mean, posterior.std)
            means.append(mean.cpu())
            stds.append(std.cpu())
        return {"mean": torch.cat(means), "std": torch.cat(stds), **self.stack.image_rows(placed)}

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of conditioning (`text` `[N, 77, D]`, ...) on the CPU; long prompts are cut as in sampling."""
        parts = [
            {name: rows.cpu() for name, rows in self.stack.rows(part).items()}
            for part in _split(prompts, self._arithmetic.batch)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    # ---- the network

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning, *, reference: bool = False) -> Tensor:
        """The network's output, float32 `[N, C, H, W]`.

        With gradients the (perhaps wrapped) `policy` runs. Without them, as in an inversion, the bare network
        does, with dropout off: no synchronisation of gradients to prepare, and no noise on the path.
        """
        if not reference and torch.is_grad_enabled():
            return self._forward(self.policy, x, t, cond)
        with torch.no_grad(), self._still(reference) as network:
            return self._forward(network, x, t, cond)

    def _forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        # Entered for each pass: autocast remembers its casts of weights, and those that were made without
        # gradients must not be met by a pass with them.
        # Contiguous: torch may choose other kernels for other strides, and a dropout of zero, which only the network
        # that is being trained has on, changes them half way.
        with self._autocast():
            output: Tensor = network(x.contiguous(), t, **self.stack.network_inputs(cond), return_dict=False)[
                0
            ]
        return output.float()

    def _autocast(self) -> torch.autocast:
        precision = self._arithmetic.precision
        return torch.autocast(
            self.device.type, dtype=_HALF.get(precision, torch.bfloat16), enabled=precision != "fp32"
        )

    @contextmanager
    def _still(self, reference: bool) -> Iterator[nn.Module]:
        """The bare policy or reference network, without dropout, and afterwards everything as it was."""
        if reference and not self._adapted:
            if self._reference is None:
                assert self._fetch is not None
                self._reference = self._fetch().to(self.device)
            yield self._reference
            return
        training = self.network.training and self._dropout
        if training:
            self.network.eval()
        try:
            if reference:
                with adapter_off(self.network):
                    yield self.network
            else:
                yield self.network
        finally:
            if training:
                self.network.train()

    # ---- sampling

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
    ) -> list[Picture]:
        """PIL images from the pipeline's own `__call__`, with the folder's scheduler.

        Starting noise comes from a CPU generator for each image, so it is the same on every device. In
        float32 the images are those that plain diffusers draws from the saved folder.
        """
        pipeline, side = self.stack.pipeline, self.stack.resolution
        pictures: list[Picture] = []
        with self._still(reference) as network:
            pipeline.unet = network
            try:
                for rows in _split(range(len(prompts)), self._arithmetic.batch):
                    inputs = self.stack.prompt_inputs([prompts[i] for i in rows], guided=guidance > 1)
                    with self._autocast():  # the network alone: pictures and prompts stay in float32
                        latents = pipeline(
                            **inputs,
                            generator=[torch.Generator("cpu").manual_seed(seeds[i]) for i in rows],
                            guidance_scale=guidance,
                            num_inference_steps=steps,
                            height=side,
                            width=side,
                            output_type="latent",
                        ).images
                    pictures += self.stack.pictures(latents.float())
            finally:
                pipeline.unet = self.network
        return pictures

    # ---- what is kept

    def trainable_state(self) -> dict[str, Tensor]:
        """The trained parameters by name, not copied: all of the UNet, or the adapter."""
        return {name: p.detach() for name, p in self.network.named_parameters() if p.requires_grad}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `trainable_state` gave. Raises `RunError` when it is from another network."""
        mine = self.trainable_state()
        shapes = {name: tuple(value.shape) for name, value in mine.items()}
        if shapes != {name: tuple(value.shape) for name, value in state.items()}:
            raise RunError(
                "the checkpoint's parameters are not those of this model",
                help="base model, adapter rank and targets must be the same as when it was written",
            )
        for name, value in mine.items():  # detached, so this is not recorded
            value.copy_(state[name])

    def save(self, folder: Path) -> list[str]:
        """A whole pipeline folder in float32, or a LoRA; returns lines of Python that load it.

        Half precision would round much of a short fine-tuning away: updates are a thousandth of the weights.
        """
        pipeline = self.stack.pipeline
        with replaced_folder(folder) as fresh:
            if self._adapted:
                save_adapter(pipeline, self.network, fresh)
                base, then = self.source, [f"pipe.load_lora_weights({str(folder)!r})"]
            else:
                with quiet():
                    pipeline.save_pretrained(fresh, safe_serialization=True)
                without_paths(fresh)
                base, then = str(folder), []
        opening = f"pipe = DiffusionPipeline.from_pretrained({base!r}, dtype=torch.float32)"
        return ["import torch", "from diffusers import DiffusionPipeline", opening, *then]


# ---------------------------------------------------------------------------------------------------- loading


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
    half, hold = _HALF.get(precision), runtime.reference
    reference = policy_and_reference(stack.pipeline, adapter, half, hold=hold)
    later = partial(fetch_reference, folder, stack.pipeline.unet, variant=variant, half=half)
    if runtime.gradient_checkpointing:
        stack.pipeline.unet.enable_gradient_checkpointing()
    stack.pipeline.to(device)
    return UNetDenoiser(
        stack,
        reference=None if reference is None else reference.to(device),
        arithmetic=Arithmetic(device, precision, runtime.batch),
        keys=content_keys(folder, stack, variant=variant),
        source=str(path_or_id),
        fetch=None if hold or adapter is not None else later,
    )


def _split(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
