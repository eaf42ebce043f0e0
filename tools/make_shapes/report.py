"""Measure what is shipped: the numbers in the README, from fixed seeds.

python -m tools.make_shapes.report base
python -m tools.make_shapes.report reward --pairs tuning.parquet
python -m tools.make_shapes.report pairs --pairs train.parquet
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from smpo.worlds.shapes import BASE, PAIRS, REWARD
from smpo.worlds.shapes.judge import measure
from smpo.worlds.shapes.prompts import COMBOS, captions, prompts
from smpo.worlds.shapes.scene import draw_scenes, render
from tools.make_shapes.annotators import mean_utility, panel
from tools.make_shapes.base import tokenize
from tools.make_shapes.pairs import load_base, sample
from tools.make_shapes.progress import Progress
from tools.make_shapes.reward import embed, to_pixels

DECISIVE = 0.10
"""A pair is decisive if the judge's scores differ by more."""
REPORTED = ("right_colour", "right_background", "right_shape", "score", "area", "offset", "vividness")


def report_base(folder: Path, n: int, progress: Progress) -> None:
    """What the judge sees in samples for the untouched prompts, and how far inversion returns."""
    pipeline = load_base(folder)
    pool = prompts("untouched")[:n]
    for guidance in (1.0, 1.5, 3.0):
        pictures = sample(pipeline, pool, list(range(len(pool))), guidance=guidance)
        seen = [measure(picture, caption) for picture, caption in zip(pictures, pool, strict=True)]
        means = {name: round(float(np.mean([m[name] for m in seen])), 3) for name in REPORTED}
        progress.say(f"guidance {guidance}, {len(pool)} untouched prompts: {means}")
    error, variance = round_trip(pipeline)
    progress.say(f"round trip, 10 steps up and 10 down: squared error {error:.4f} of variance {variance:.4f}")


@torch.no_grad()
def round_trip(pipeline: Any, n: int = 96, steps: int = 10) -> tuple[float, float]:
    """Mean squared error of latents after DDIM inversion and DDIM sampling at guidance 1, and their variance."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    numbers = np.random.default_rng(3)
    chosen = [COMBOS[i] for i in numbers.integers(len(COMBOS), size=n)]
    pixels = torch.from_numpy(render(draw_scenes(chosen, numbers))).permute(0, 3, 1, 2) * 2 - 1
    clean = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    text = pipeline.text_encoder(tokenize(pipeline.tokenizer, [captions(c)[0] for c in chosen])).last_hidden_state
    latents = clean
    up = DDIMInverseScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    down = DDIMScheduler.from_config(pipeline.scheduler.config)
    for scheduler in (up, down):
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            latents = scheduler.step(pipeline.unet(latents, t, text).sample, t, latents).prev_sample
    return float((latents - clean).square().mean()), float(clean.var())


@torch.no_grad()
def report_reward(folder: Path, parquet: Path, progress: Progress) -> None:
    """Agreement of the reward with the judge and with votes, on pairs that trained nothing."""
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = pq.read_table(parquet).to_pylist()
    text = embed(model, ids=tokenize(tokenizer, [row["caption"] for row in rows]))
    scores, judged = [], []
    for side in ("jpg_0", "jpg_1"):
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(row[side]))) for row in rows])
        images = torch.cat([embed(model, pixels=part) for part in to_pixels(pictures).split(128)])
        scores.append((model.logit_scale.exp() * (text * images).sum(-1)).numpy())
        judged.append(np.array([measure(p, row["caption"])["score"] for p, row in zip(pictures, rows, strict=True)]))
    margin, truth = scores[0] - scores[1], judged[0] - judged[1]
    labels = np.array([row["label_0"] for row in rows])
    agree, voted = (margin > 0) == (truth > 0), labels != 0.5
    decisive = abs(truth) > DECISIVE
    correlation = np.corrcoef(np.concatenate(scores), np.concatenate(judged))[0, 1]
    progress.say(
        f"{len(rows)} votes: agreement with the judge {agree.mean():.3f}, on the {decisive.mean():.2f} that are "
        f"decisive {agree[decisive].mean():.3f}; with votes {((margin > 0) == (labels > 0.5))[voted].mean():.3f}, "
        f"the judge with votes {((truth > 0) == (labels > 0.5))[voted].mean():.3f}; "
        f"correlation of scores {correlation:.3f}; scale {float(model.logit_scale.exp()):.1f}"
    )


def report_pairs(parquet: Path, progress: Progress) -> None:
    """Ties, votes, and how often a vote goes against the panel's mean taste."""
    import pyarrow.parquet as pq

    people, rows = panel(), pq.read_table(parquet).to_pylist()
    flips, seen = [], set()
    for row in rows:
        seen.add((row["image_0_uid"], row["image_1_uid"]))
        if not row["has_label"]:
            continue
        liked = [
            mean_utility(people, measure(Image.open(io.BytesIO(row[side])), row["caption"]))
            for side in ("jpg_0", "jpg_1")
        ]
        flips.append((liked[0] > liked[1]) != (row["label_0"] == 1.0))
    ties = 1 - len(flips) / len(rows)
    progress.say(
        f"{len(seen)} pairs, {len(rows)} votes, ties {ties:.3f}, flips against the mean taste {np.mean(flips):.3f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the shapes world's weights.")
    parser.add_argument("what", choices=("base", "reward", "pairs"))
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--reward", type=Path, default=REWARD)
    parser.add_argument("--pairs", type=Path, default=PAIRS)
    parser.add_argument("--n", type=int, default=228, help="prompts to sample for `base`")
    options = parser.parse_args()
    if options.what == "base":
        report_base(options.base, options.n, Progress("report"))
    elif options.what == "reward":
        report_reward(options.reward, options.pairs, Progress("report"))
    else:
        report_pairs(options.pairs, Progress("report"))
