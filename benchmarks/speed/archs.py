"""Networks with random weights of the true architecture, and the pairs that both arms are shown.

Speed doesn't depend on what weights say. `sd15` and `sdxl` have the published configurations; `tiny` is an SDXL in
small, with an autoencoder and text encoder that cost as large a share of a forward pass as SDXL's do.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from smpo.components.optimisers import AdamW

GRID = {"tiny": 10, "sdxl": 10, "sd15": 5}
"""Inversion steps of the official scripts."""
CHECKPOINTED = {"tiny": True, "sdxl": True, "sd15": False}
"""Whether the official scripts checkpoint."""
BETA = {"tiny": 5000.0, "sdxl": 5000.0, "sd15": 2000.0}

_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_TINY_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 32,
}


@dataclass
class World:
    """Networks in float32 on the device, and P pairs. Images `[P, 2, 3, H, W]`, tokens `[P, 77]`, probabilities and
    timesteps `[P]`, noise of the posterior `[2, P, C, h, w]`."""

    arch: str
    device: torch.device
    policy: nn.Module
    reference: nn.Module
    vae: nn.Module
    encoders: list[nn.Module]
    images: Tensor
    tokens: Tensor
    p: Tensor
    t: Tensor
    noise: Tensor
    moments: Any = None
    """What the caching pass found, once it was made: see `speed.ours.encode`."""
    networks: WeakValueDictionary[Any, Any] = field(default_factory=WeakValueDictionary)
    """Pairs of networks that arms share while one of them is alive."""

    def part(self, pairs: Sequence[int]) -> World:
        """The same networks and optimiser with some of the pairs."""
        rows = list(pairs)
        found = replace(
            self, images=self.images[rows], tokens=self.tokens[rows], p=self.p[rows], t=self.t[rows],
            noise=self.noise[:, rows], moments=None if self.moments is None else _rows(self.moments, rows),
        )  # fmt: skip
        found.__dict__["optimiser"] = self.optimiser
        return found

    def spread(self, count: int) -> World:
        """`part` with `count` pairs: timesteps of all bins alike, or spread over them when they are fewer than bins."""
        bins = min(GRID[self.arch], len(self.t))
        if count >= len(self.t):
            return self
        return self.part(range(count) if count >= bins else [int((i + 0.5) * bins / count) for i in range(count)])

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        """One for all arms: its state is twice as large as the weights, and with a rate of 0 they don't change."""
        return AdamW().build(self.policy.parameters(), 0.0)

    @property
    def scale(self) -> float:
        return float(self.vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]

    @property
    def pipeline(self) -> Any:
        """As much of a pipeline as smpo's adapters need."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # type: ignore[union-attr, arg-type]
        return SimpleNamespace(
            unet=self.policy,
            vae=self.vae,
            scheduler=SimpleNamespace(config=SCHEDULE),
            vae_scale_factor=factor,
        )

    def encoded(self, tokens: Tensor) -> dict[str, Tensor]:
        """Conditioning of prompts, as the pipelines make it: the last layer but one, and SDXL's pooled vector."""
        if self.arch == "sd15":
            return {"text": self.encoders[0](tokens)[0]}
        outputs = [encoder(tokens, output_hidden_states=True) for encoder in self.encoders]
        text = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        size = float(self.images.shape[-1])
        ids = torch.tensor([size, size, 0, 0, size, size], device=tokens.device).repeat(len(tokens), 1)
        return {"text": text, "pooled": outputs[-1][0], "size_ids": ids}


def _rows(moments: Any, rows: list[int]) -> Any:
    mean, std, told = moments
    return mean[:, rows], std[:, rows], {name: tensor[rows] for name, tensor in told.items()}


SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build(arch: str, device: torch.device, pairs: int, seed: int = 0, *, reduced: bool = False) -> World:
    """The reference is the policy with a thousandth of noise on its weights, else every margin would be 0. Timesteps
    are fixed, one in the middle of each of n bins, so that all arms do the same work and the mean is known. `reduced`:
    the true blocks an eighth as wide, on latents of 16 x 16, with tiny encoders, so that a CPU can show that it works.
    """
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    with device:
        config = {**UNETS[arch], **(REDUCED[arch] if reduced else {})}
        unet, side, tiny = UNet2DConditionModel(**config), config["sample_size"], reduced or arch == "tiny"
        vae, texts = encoders(arch, tiny=tiny)
    reference = copy.deepcopy(unet).requires_grad_(False).eval()
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for weight in reference.parameters():
            drawn = torch.randn(weight.shape, generator=generator) if device.type == "cpu" else torch.randn_like(weight)
            weight.mul_(1 + 1e-3 * drawn.to(device))
    bins = GRID[arch]
    t = torch.tensor([int(1000 * (i % bins + 0.5) / bins) for i in range(pairs)])
    pixels = side * 2 ** (len(vae.config.block_out_channels) - 1)
    return World(
        arch=arch,
        device=device,
        policy=unet.train(),
        reference=reference,
        vae=vae,
        encoders=texts,
        images=torch.rand(pairs, 2, 3, pixels, pixels, generator=generator) * 2 - 1,
        tokens=torch.randint(0, 40_000, (pairs, 77), generator=generator),
        p=0.3 + 0.4 * torch.rand(pairs, generator=generator),
        t=t,
        noise=torch.randn(2, pairs, 4, side, side, generator=generator),
    )


def encoders(arch: str, *, tiny: bool) -> tuple[Any, list[nn.Module]]:
    """A frozen autoencoder and text encoders of this architecture, with random weights, on torch's default device."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vae = AutoencoderKL(**(_tiny_vae() if tiny else {**_VAE, "latent_channels": 4}))
    small, large = (_TINY_CLIP, _TINY_CLIP) if tiny else (_CLIP_L, _BIG_G)
    texts: list[nn.Module] = [CLIPTextModel(CLIPTextConfig(**small))]
    if arch != "sd15":
        texts.append(CLIPTextModelWithProjection(CLIPTextConfig(**large)))
    for frozen in (vae, *texts):
        frozen.requires_grad_(False).eval()
    return vae, texts


def _tiny_vae() -> dict[str, Any]:
    channels = (8, 16, 16, 32)
    return {
        **_VAE,
        "block_out_channels": channels,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "layers_per_block": 1,
    }


UNETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "sample_size": 16,
        "block_out_channels": (32, 64, 128),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 4, 8),
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "use_linear_projection": True,
        "norm_num_groups": 8,
    },
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": True,
    },
}

REDUCED: dict[str, dict[str, Any]] = {
    "tiny": {
        "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "attention_head_dim": (2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 4,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 1),
    },
    "sd15": {
        "sample_size": 16, "block_out_channels": (40, 80, 160, 160), "cross_attention_dim": 32, "norm_num_groups": 8,
    },
    "sdxl": {
        "sample_size": 16, "block_out_channels": (40, 80, 160), "cross_attention_dim": 64, "norm_num_groups": 8,
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 32,
    },
}  # fmt: skip
"""What differs from `UNETS`."""
