"""Train the autoencoder: 64 x 64 RGB to 8 x 8 latents of 8 channels (512 numbers for 12,288).

Loss: weighted L1 and squares of the pixels + L1 of their finite differences (edges) + a faint KL. Pixels of the
object weigh more, in inverse proportion to its area: otherwise small objects are painted over.
bfloat16 for most of the way, float32 at the end, because bfloat16 has 8 bits and so have pictures.

    python -m tools.make_shapes.vae --out FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from smpo.worlds.shapes.prompts import COMBOS
from smpo.worlds.shapes.scene import SIDE, draw_scenes, render
from tools.make_shapes.progress import Progress, arguments

KL_WEIGHT = 5e-4
EDGE_WEIGHT = 1.0
SQUARE_WEIGHT = 2.0
OBJECT_WEIGHT = 1.0
"""Summed weight of the object's pixels, in units of the whole picture's."""
BATCH = 16
PEAK_LR = 2e-3
FLOAT32_SHARE = 0.15
EMA_DECAY = 0.995


def build_vae() -> Any:
    """An untrained AutoencoderKL of half a million parameters.

    One norm group, because a hue is a ratio of channels: eight groups over sixteen channels normalise
    each pair by itself, and reds, oranges and yellows then come out alike.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32, 32, 48),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,
        sample_size=SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def scene_batch(n: int, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures in [-1, 1], [n, 3, side, side], and the weights of pixels, [n, 1, side, side]."""
    chosen = [COMBOS[i] for i in generator.integers(len(COMBOS), size=n)]
    scenes = draw_scenes(chosen, generator)
    pictures = render(scenes)
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    weights = np.ones((n, SIDE, SIDE), dtype=np.float32)
    for weight, scene in zip(weights, scenes, strict=True):
        reach = 0.65 * scene.size + 1.5 / SIDE  # the object and a rim of background
        near = np.maximum(abs(axis[None, :] - scene.x), abs(axis[:, None] - scene.y)) < reach
        weight += near * OBJECT_WEIGHT / near.mean()
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1, torch.from_numpy(weights)[:, None]


def loss_of(
    vae: Any, pictures: torch.Tensor, weights: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to descend, and the plain L1 error to report."""
    posterior = vae.encode(pictures).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    noise = torch.randn(mean.shape, generator=generator)
    decoded = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
    error = decoded - pictures
    pixel = ((error.abs() + SQUARE_WEIGHT * error.square()) * weights).mean()
    edge = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return pixel + EDGE_WEIGHT * edge + KL_WEIGHT * kl, error.abs().mean().detach()


def save(vae: Any, ema: dict[str, torch.Tensor], out: Path, generator: np.random.Generator) -> float:
    """Write the averaged weights with the latents' measured scale; return the scale."""
    averaged = build_vae()
    averaged.load_state_dict({**vae.state_dict(), **ema})
    averaged.eval()
    with torch.no_grad():
        pictures, _ = scene_batch(512, generator)
        latents = torch.cat([averaged.encode(part).latent_dist.mean for part in pictures.split(64)])
    scale = 1.0 / float(latents.std())
    averaged.register_to_config(scaling_factor=scale)
    averaged.save_pretrained(out)
    return scale


def train(steps: int, seed: int, out: Path, start: Path | None = None) -> None:
    """Train from scratch or from the weights in `start`; write an AutoencoderKL folder in float32."""
    progress = Progress("vae", snapshot_minutes=2)
    torch.manual_seed(seed)
    numbers = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    vae = build_vae()
    if start is not None:
        vae.load_state_dict(type(vae).from_pretrained(start, use_safetensors=True).state_dict())
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_LR, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_LR, total_steps=steps, pct_start=0.08)
    ema = {k: v.detach().clone() for k, v in vae.state_dict().items()}
    recent = []
    for step in range(steps):
        pictures, weights = scene_batch(BATCH, numbers)
        coarse = step < (1 - FLOAT32_SHARE) * steps
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=coarse):
            loss, error = loss_of(vae, pictures, weights, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for name, value in vae.state_dict().items():
            ema[name].lerp_(value, 1 - decay)
        recent.append(float(error))
        if (step + 1) % 50 == 0:
            progress.say(f"step {step + 1}/{steps} loss {float(loss):.4f} L1 {np.mean(recent[-50:]):.4f}")
        if progress.snapshot_due():
            save(vae, ema, out, np.random.default_rng(seed + 1))
    scale = save(vae, ema, out, np.random.default_rng(seed + 1))
    progress.say(f"done: L1 {np.mean(recent[-200:]):.4f} of a range of 2, scaling factor {scale:.4f}")


if __name__ == "__main__":
    parser = arguments("Train the shapes world's autoencoder.", steps=4200, out=Path("vae"))
    parser.add_argument("--start", type=Path, help="autoencoder folder to go on from")
    options = parser.parse_args()
    train(options.steps, options.seed, options.out, options.start)
