"""Small pipelines of true classes on the device, questions to their networks, and trainings of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.app.build.build import build_run
from smpo.app.build.live import LiveRun
from smpo.engine.checkpoints.train_state import TrainState
from smpo.experiment import ExperimentSpec
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, Runtime
from smpo.registry.resolve import resolve
from tests.families.test_unet_networks import micro_batch, trainable_state

DEVICE = os.environ.get("SMPO_TEST_DEVICE", "cuda")
CHANNELS = (32, 64) if DEVICE == "cpu" else (128, 256)
"""Heads of SDXL's kind have 64 numbers on a GPU, as SDXL's have."""
WAYS = {"full": None, "LoRA": Adapter(rank=4, alpha=4.0)}


def load(models: Path, arch: str, device: torch.device, *, way: str = "full", **runtime: Any) -> UNetDenoiser:
    return load_unet(models / arch, adapter=WAYS[way], runtime=Runtime(device=device.type, **runtime))


def asked(denoiser: UNetDenoiser, rows: int = 4) -> tuple[Tensor, Tensor, Conditioning]:
    """Latents, timesteps and prompts, the same on every device."""
    x, t, cond = micro_batch(denoiser, rows)
    return x.to(denoiser.device), t.to(denoiser.device), cond.to(denoiser.device)


def move(denoiser: UNetDenoiser, share: float) -> None:
    """Move what is trained by this share of each tensor's size (a LoRA's zeros by as much of one), as an update does;
    the same on every device and in every precision."""
    random = torch.Generator().manual_seed(1)
    for value in trainable_state(denoiser).values():
        noise = torch.randn(value.shape, generator=random).to(value)
        size = value.square().mean().sqrt()
        value.add_(share * torch.where(size > 0, size, 1.0) * noise)


SPEC = """\
name: small
model: {{use: stable-diffusion, weights: {models}/sdxl{more}}}
data: {{use: pickapic, path: {models}/votes.parquet}}
objective: {{use: smpo, beta: 1000}}
smoothing: hard
inversion: {{use: renoise, steps: 3, by: policy}}
train: {{steps: 4, batch: 4, lr: 1.0e-4, clip: 1.0}}
runtime: {{device: {device}, threads: 1, runs: {folder}/runs, cache: {folder}/cache, tracking: none}}
"""


def training(
    models: Path,
    folder: Path,
    device: torch.device,
    sets: Sequence[str] = (),
    *,
    lora: bool = False,
    say: Any = None,
) -> LiveRun:
    """A training that `smpo run` would begin; `sets` as for `--set`."""
    import smpo.components  # noqa: F401 -- fills the common registry

    file = folder / "spec.yaml"
    more = ", lora: {rank: 4}" if lora else ""
    file.write_text(SPEC.format(models=models, more=more, device=device.type, folder=folder))
    spec = resolve(file, skeleton=ExperimentSpec, sets=list(sets)).spec
    return build_run(spec, report=None, progress=lambda *_: None, say=say or pytest.fail)


def state(live: LiveRun) -> TrainState:
    session = live.session
    return TrainState(
        live.parameters,
        session.optimiser,
        session.average,
        session.scaler,
        session.overflows,
    )


def trained(live: LiveRun) -> dict[str, Tensor]:
    """What was trained, and its average, on the CPU."""
    average = live.session.average
    found = {name: p.detach().cpu().clone() for name, p in live.parameters.items()}
    return found | ({} if average is None else {f"average/{n}": t.cpu().clone() for n, t in average.shadow.items()})
