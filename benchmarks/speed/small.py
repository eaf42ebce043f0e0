"""smpo's loop on networks of the two shapes, small or of true size, with everything on that a spec may switch on."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO, SupervisedFineTuning
from smpo.engine.drawn import Settings
from smpo.engine.ema import Average
from smpo.engine.loop import Session
from smpo.engine.passes import Passes
from smpo.engine.rates import LearningRate
from smpo.families.lora import Adapter
from smpo.families.networks import HALF, Arithmetic, Networks
from smpo.families.pipelines import policy_and_reference
from smpo.families.recompute import checkpoint
from smpo.families.stacks import SDStack, SDXLStack
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, PairBatch
from smpo.maths.draws import PositionDraws
from speed.archs import SCHEDULE, UNETS
from speed.ours import _Alone

SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "SD 1.5 in small": (
        {
            "sample_size": 16, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64,
            "attention_head_dim": 8, "norm_num_groups": 8,
        },
        128,
    ),
    "SDXL in small": ({**UNETS["tiny"], "sample_size": 16}, 128),
}  # fmt: skip
TRUE_SHAPES = {"sd15": (UNETS["sd15"], 512), "sdxl": (UNETS["sdxl"], 1024)}
"""Architectures of `smpo plan`, at the resolution of their pictures."""


def session(shape: str, case: Any, optimiser: Any, *, device: torch.device, pairs: int) -> Session:
    """Two updates of `pairs` pairs with random latents and prompts, along SmPO's inversion (or SFT without one)."""
    from diffusers import UNet2DConditionModel

    config, pixels = {**SHAPES, **TRUE_SHAPES}[shape]
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(**config)
    half = HALF.get(case.precision)
    adapter = None if case.rank is None else Adapter(rank=case.rank, alpha=case.rank, dora=case.dora)
    vae = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,) * 4, latent_channels=4))
    pipeline = SimpleNamespace(
        unet=unet, vae=vae, scheduler=SimpleNamespace(config=SCHEDULE), vae_scale_factor=8
    )
    reference = policy_and_reference(pipeline, adapter, half, hold=case.reference)
    unet.to(device)
    checkpoint(unet, case.checkpointing)
    stack = (SDXLStack if "addition_embed_type" in config else SDStack)(pipeline, pixels)
    networks = Networks(
        unet, reference, arithmetic=Arithmetic(device, case.precision, 2 * case.micro), shadow=case.shadow,
        fetch=None if case.reference or adapter else _nobody,
    )  # fmt: skip
    denoiser = UNetDenoiser(stack, networks, keys=("small", "small"), opening=("", ""), origin={})
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    return Session(
        denoiser=denoiser,
        objective=SmPO(beta=2000.0) if case.reference else SupervisedFineTuning(),
        inversion=ReNoise(steps=1),
        optimiser=optimiser.build(parameters.values(), 1e-5),
        rate=LearningRate(1e-5, 2),
        accelerator=_Alone(),
        batches=lambda step: _batches(config, pixels, step, pairs, case.micro, device),
        draws=lambda position: PositionDraws(0, position, device),
        settings=Settings(seed=0, t_min=0, t_max=999, posterior=True, passes=Passes()),
        steps=2,
        pairs_per_update=pairs,
        clip=1.0,
        window=case.window,
        average=Average(parameters, 0.99) if case.ema else None,
    )


def _nobody() -> Any:
    raise AssertionError("nobody asks for the reference")


def _batches(
    config: dict[str, Any], pixels: int, step: int, pairs: int, micro: int, device: torch.device
) -> Iterator[PairBatch]:
    side = pixels // 8
    for first in range(step * pairs, (step + 1) * pairs, micro):
        rows = min(micro, (step + 1) * pairs - first)
        told = {"text": torch.randn(2 * rows, 77, config["cross_attention_dim"], device=device)}
        if "addition_embed_type" in config:
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            told["pooled"] = torch.randn(2 * rows, pooled, device=device)
            told["size_ids"] = (
                torch.tensor([pixels, pixels, 0, 0, pixels, pixels], device=device)
                .float()
                .repeat(2 * rows, 1)
            )
        yield PairBatch(
            ids=[str(first + i) for i in range(rows)],
            position=torch.arange(first, first + rows),
            mean=torch.randn(2 * rows, 4, side, side, device=device),
            std=torch.full((2 * rows, 4, side, side), 0.1, device=device),
            conditioning=Conditioning(told),
            p=torch.full((rows,), 0.6, device=device),
        )
