"""Train the base: text encoder and UNet together, on latents of rendered scenes, and write a pipeline folder.

Plain epsilon prediction on Stable Diffusion's schedule. One caption in ten is empty, for guidance.
Timesteps are stratified over the batch. The weights kept are the exponential moving average.

    python -m tools.make_shapes.base --vae FOLDER --out FOLDER
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smpo.worlds.shapes.prompts import COMBOS, TEMPLATES, captions
from smpo.worlds.shapes.scene import draw_scenes, render
from tools.make_shapes.progress import Progress, arguments
from tools.make_shapes.tokenizer import build_tokenizer

BATCH = 48
PEAK_LR = 1.5e-3
EMA_DECAY = 0.999
EMPTY_SHARE = 0.1
TEXT_WIDTH = 64


def build_unet() -> Any:
    """An untrained UNet of 1.7 M parameters; attention only at 4 x 4, where it is cheap."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 72),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # the number of heads, as in Stable Diffusion 1.5's files
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def build_text_encoder(tokenizer: Any) -> Any:
    """An untrained CLIPTextModel, 64 wide and 2 layers deep."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=TEXT_WIDTH,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> Any:
    """Stable Diffusion's schedule, deterministic sampling."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def tokenize(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Padded token ids, [n, max_length]."""
    encoded = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    ids: torch.Tensor = encoded.input_ids
    return ids


@torch.no_grad()
def encode_scenes(vae: Any, n: int, seed: int, progress: Progress) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled posterior means and deviations of n random scenes, [n, 8, 8, 8], and their combos' indices, [n]."""
    numbers = np.random.default_rng(seed)
    chosen = torch.arange(n) % len(COMBOS)
    means, deviations = [], []
    for part in chosen.split(64):
        pictures = render(draw_scenes([COMBOS[i] for i in part.tolist()], numbers))
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1
        posterior = vae.encode(pixels).latent_dist
        means.append(posterior.mean * vae.config.scaling_factor)
        deviations.append(posterior.std * vae.config.scaling_factor)
        if len(means) % 100 == 0:
            progress.say(f"encoded {64 * len(means)}/{n} scenes")
    return torch.cat(means), torch.cat(deviations), chosen


def save_pipeline(out: Path, *, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any) -> None:
    """Write a StableDiffusionPipeline folder in float16, all at once so that readers never see half of it."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        fresh = Path(scratch) / "pipeline"
        pipeline.to(torch.float16).save_pretrained(fresh)
        # Without a dtype in the call, transformers opens a model in its saved type and diffusers in float32.
        config = fresh / "text_encoder" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
        for file in fresh.rglob("config.json"):  # without the path of the folder it came from
            text = {k: v for k, v in json.loads(file.read_text()).items() if k != "_name_or_path"}
            file.write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)


def train(
    *,
    steps: int,
    seed: int,
    vae_folder: Path,
    out: Path,
    scenes: int,
    start: Path | None = None,
    peak_lr: float = PEAK_LR,
) -> None:
    """Train text encoder and UNet, from scratch or from the pipeline in `start`.

    Snapshots of the averaged weights go to `out` in the final format.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    progress = Progress("base", snapshot_minutes=4)
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(vae_folder, use_safetensors=True)
    means, deviations, combo_of = encode_scenes(vae, scenes, seed, progress)
    tokenizer = build_tokenizer()
    texts = [caption for combo in COMBOS for caption in captions(combo)]
    ids = tokenize(tokenizer, [*texts, ""])
    parts = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)})
    if start is not None:
        earlier = StableDiffusionPipeline.from_pretrained(start, use_safetensors=True, dtype=torch.float32)
        parts["unet"].load_state_dict(earlier.unet.state_dict())
        parts["text_encoder"].load_state_dict(earlier.text_encoder.state_dict())
    parts.train()
    averaged = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)})
    averaged.load_state_dict(parts.state_dict())
    levels = build_scheduler().alphas_cumprod  # [1000]
    optimizer = torch.optim.AdamW(parts.parameters(), lr=peak_lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak_lr, total_steps=steps, pct_start=0.05)

    def snapshot() -> None:
        copies = {"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
        for name, model in copies.items():
            model.load_state_dict(averaged[name].state_dict())
            model.eval()
        fresh_vae = AutoencoderKL.from_pretrained(vae_folder, use_safetensors=True)
        save_pipeline(out, vae=fresh_vae, tokenizer=tokenizer, **copies)

    recent: list[float] = []
    for step in range(steps):
        rows = torch.randint(scenes, (BATCH,), generator=noise)
        wording = torch.randint(len(TEMPLATES), (BATCH,), generator=noise)
        caption = combo_of[rows] * len(TEMPLATES) + wording
        caption[torch.rand(BATCH, generator=noise) < EMPTY_SHARE] = len(texts)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=noise)) / BATCH
        t = (strata * len(levels)).long()
        # A sample, not the mean: scenes have seven degrees of freedom, and inverting a picture from so thin a
        # set gives far too little noise.
        clean = means[rows] + deviations[rows] * torch.randn(means[rows].shape, generator=noise)
        eps = torch.randn(clean.shape, generator=noise)
        level = levels[t].view(-1, 1, 1, 1)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * eps
        text = parts["text_encoder"](ids[caption]).last_hidden_state  # [batch, max_length, 64]
        predicted = parts["unet"](noisy, t, text).sample
        loss = (predicted - eps).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(parts.parameters()), 1 - decay)
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            progress.say(f"step {step + 1}/{steps} loss {np.mean(recent[-100:]):.4f}")
        if progress.snapshot_due():
            snapshot()
    snapshot()
    progress.say(f"done: loss {np.mean(recent[-500:]):.4f}")


if __name__ == "__main__":
    parser = arguments("Train the shapes world's text encoder and UNet.", steps=12_000, out=Path("base"))
    parser.add_argument("--vae", type=Path, required=True, help="folder written by make.vae")
    parser.add_argument("--scenes", type=int, default=32_000, help="rendered scenes to learn from")
    parser.add_argument("--start", type=Path, help="pipeline folder to go on from")
    parser.add_argument("--lr", type=float, default=PEAK_LR, help="peak learning rate")
    options = parser.parse_args()
    train(
        steps=options.steps,
        seed=options.seed,
        vae_folder=options.vae,
        out=options.out,
        scenes=options.scenes,
        start=options.start,
        peak_lr=options.lr,
    )
