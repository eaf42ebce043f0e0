"""The training that a spec describes, on networks of its true size with weights that hold nothing: for memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.forward_batches import ForwardBatches
from smpo.engine.learning_rate import LearningRate
from smpo.engine.loop import Session
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.engine.out_of_memory import MicroBatcher
from smpo.experiment import ExperimentSpec
from smpo.families.lora import Adapter
from smpo.families.pipeline_adapters import PipelineAdapter, SDXLPipelineAdapter
from smpo.families.pipelines import policy_and_reference
from smpo.families.policy_reference import HALF, Arithmetic, PolicyAndReference
from smpo.families.recompute import checkpoint
from smpo.families.speed import Speed
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, PairBatch
from smpo.maths.draws import PositionDraws
from speed.archs import _BIG_G, _CLIP_L, _VAE, SCHEDULE, UNETS

__all__ = ["SIZES", "policy", "training"]

SIZES = {859_520_964: "sd15", 2_567_463_684: "sdxl"}
"""Architectures by the parameters of their UNet."""


def training(spec: ExperimentSpec, device: torch.device) -> Session:
    """As `smpo.app.build.build` puts it together, with pairs that a loader would bring."""
    facts, runtime, train = spec.model.facts(), spec.runtime, spec.train
    arch = SIZES[facts.parameters or 0]
    denoiser = _denoiser(arch, spec, facts.resolution or 512, device)
    trained = {name: p for name, p in denoiser.network.named_parameters() if p.requires_grad}
    share = train.batch // runtime.devices
    micro = min(runtime.micro_batch or share, share)
    return Session(
        denoiser=denoiser,
        objective=spec.objective,
        inversion=spec.inversion,
        optimiser=train.optimiser.build(trained.values(), train.lr),
        learning_rate=LearningRate(train.lr, train.steps),
        accelerator=Alone(),
        batches=lambda step: _batches(arch, denoiser, step * share, share, micro),
        draws=lambda position: PositionDraws(train.seed, position, device),
        settings=StepConfig(
            seed=train.seed,
            t_min=train.t_min,
            t_max=999 if train.t_max is None else train.t_max,
            posterior=train.posterior == "sample",
            timesteps=train.timesteps_per_pair,
            passes=ForwardBatches(runtime.inversion_batch, runtime.even_batches),
        ),
        steps=train.steps,
        pairs_per_update=share,
        clip=train.clip,
        average=ExponentialMovingAverage(trained, train.ema) if train.ema else None,
        window=runtime.window,
        scaler=torch.amp.GradScaler(device.type, enabled=train.precision == "fp16"),
        micro_batcher=MicroBatcher(micro),
    )


def _denoiser(arch: str, spec: ExperimentSpec, pixels: int, device: torch.device) -> UNetDenoiser:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    runtime, large = spec.runtime, arch == "sdxl"
    with torch.device("meta"):
        vae = AutoencoderKL(**_VAE, latent_channels=4)
        texts: list[nn.Module] = [CLIPTextModel(CLIPTextConfig(**_CLIP_L))]
        if large:
            texts.append(CLIPTextModelWithProjection(CLIPTextConfig(**_BIG_G)))
    for frozen in (vae, *texts):
        frozen.requires_grad_(False).to_empty(device=device)
    lora, half = getattr(spec.model, "lora", None), HALF.get(spec.train.precision)
    unet, reference = policy(
        arch, device, half, lora and _adapter(lora), hold=spec.needs_reference, rest=_rest(runtime, device)
    )
    checkpoint(unet, runtime.gradient_checkpointing)
    pipeline = SimpleNamespace(
        unet=unet,
        vae=vae,
        text_encoders=texts,
        scheduler=SimpleNamespace(config=SCHEDULE),
        vae_scale_factor=8,
    )
    networks = PolicyAndReference(
        unet,
        reference,
        arithmetic=Arithmetic(device, spec.train.precision, runtime.encode_batch),
        fetch=None if reference is not None or lora is not None else _unneeded,
        offload=runtime.offload_reference,
        speed=Speed(channels_last=runtime.channels_last, attention=runtime.attention),
        shadow=runtime.shadow_weights,
    )
    stack = (SDXLPipelineAdapter if large else PipelineAdapter)(pipeline, pixels)
    return UNetDenoiser(stack, networks, keys=("size", "size"), opening=None, origin={})  # type: ignore[arg-type]


def policy(
    arch: str,
    device: torch.device,
    half: torch.dtype | None,
    adapter: Adapter | None,
    *,
    hold: bool,
    rest: torch.device | None = None,
) -> tuple[Any, nn.Module | None]:
    """The UNet, ready to be trained, and its reference if `hold`."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**UNETS[arch])
    reference = policy_and_reference(SimpleNamespace(unet=unet), adapter, half, hold=hold)
    unet.to_empty(device=device)
    if reference is not None:
        reference.to_empty(device=rest or device)
    return unet, reference


def _adapter(lora: Any) -> Adapter:
    return Adapter(
        rank=lora.rank, alpha=lora.alpha or float(lora.rank), dropout=lora.dropout, targets=tuple(lora.targets),
        dora=lora.dora,
    )  # fmt: skip


def _rest(runtime: Any, device: torch.device) -> torch.device:
    return torch.device("cpu") if runtime.offload_reference else device


def _unneeded() -> Any:
    raise AssertionError("the reference isn't needed")


def _batches(arch: str, denoiser: UNetDenoiser, start: int, pairs: int, micro: int) -> Iterator[PairBatch]:
    """From the host, in the half precision of the caches."""
    width, device = UNETS[arch]["cross_attention_dim"], denoiser.device

    def moved(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float16).to(device).float()

    for first in range(start, start + pairs, micro):
        rows = min(micro, start + pairs - first)
        told = {"text": moved(2 * rows, 77, width)}
        if arch == "sdxl":
            told |= {"pooled": moved(2 * rows, 1280), "size_ids": torch.zeros(2 * rows, 6).to(device)}
        yield PairBatch(
            ids=[str(first + row) for row in range(rows)],
            position=torch.arange(first, first + rows),
            mean=moved(2 * rows, *denoiser.latent_shape),
            std=moved(2 * rows, *denoiser.latent_shape),
            conditioning=Conditioning(told),
            p=torch.full((rows,), 0.6).to(device),
        )


class Alone:
    """As much of an accelerator as the engine uses."""

    num_processes = 1

    @staticmethod
    def reduce(tensor: Tensor, reduction: str = "sum") -> Tensor:
        return tensor

    @staticmethod
    @contextmanager
    def no_sync(_model: Any) -> Iterator[None]:
        yield
