"""Train the reward: a tiny CLIPModel that scores like PickScore, cosine * exp(logit_scale), from votes alone.

Two stages. Without `--pairs` it learns from drawn scenes: which caption belongs to a picture (against
captions with one word changed), and which of two pictures annotators vote for. With `--pairs` it goes on
from there on voted pairs of the base's own pictures, PickScore's loss:

    - sum_i label_i log softmax(score_0, score_1)_i

The judge's numbers are never seen here, only votes.

    python -m tools.make_shapes.reward --out FOLDER
    python -m tools.make_shapes.reward --start FOLDER --pairs votes.parquet --out FOLDER
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from smpo.worlds.shapes.judge import measure
from smpo.worlds.shapes.prompts import COMBOS, captions, combos
from smpo.worlds.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIDE, draw_scenes, render, to_uint8
from tools.make_shapes.annotators import collect_votes, panel
from tools.make_shapes.base import tokenize
from tools.make_shapes.progress import Progress, arguments
from tools.make_shapes.tokenizer import build_tokenizer

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
BATCH = 48
RENDERED_PAIRS = 4_000
WRONG_CAPTION_SHARE = 0.15
"""Share of rendered pairs whose caption differs from the picture in one word, on one side."""


def build_reward(tokenizer: Any) -> Any:
    """An untrained CLIPModel: ViT of 64 patches, 96 wide and 3 layers deep; text 64 wide and 2 deep."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=64,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=64,
        image_size=SIDE,
        patch_size=8,
    )
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64))


def embed(model: Any, ids: torch.Tensor | None = None, pixels: torch.Tensor | None = None) -> torch.Tensor:
    """Unit vectors of texts or pictures: [n, 64]."""
    found = model.get_text_features(input_ids=ids) if ids is not None else model.get_image_features(pixels)
    features = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(features, dim=-1)


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [n, SIDE, SIDE, 3] to what the vision side takes, [n, 3, SIDE, SIDE]."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def one_word_changed(combo: tuple[str, str, str], part: int, numbers: np.random.Generator) -> tuple[str, str, str]:
    """A caption that is nearly right: another colour (0), shape (1) or background (2)."""
    pool = [name for name in (list(COLOURS), list(SHAPES), list(BACKGROUNDS))[part] if name != combo[part]]
    changed = list(combo)
    changed[part] = pool[int(numbers.integers(len(pool)))]
    return (changed[0], changed[1], changed[2])


def weather(picture: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Blur and speckle a render a little, as a small autoencoder does."""
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(float(numbers.uniform(0.0, 1.0))))
    noisy = np.asarray(blurred, dtype=np.float32) + numbers.normal(0, 3.0, picture.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def rendered_votes(n: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Pairs of drawn scenes with one vote each, on captions of the training split."""
    numbers = np.random.default_rng(seed)
    people, pool = panel(), combos("training")
    texts, first, second, labels, first_combo = [], [], [], [], []
    for i in range(n):
        combo = pool[int(numbers.integers(len(pool)))]
        shown = [combo, combo]
        if numbers.random() < WRONG_CAPTION_SHARE:
            shown[int(numbers.integers(2))] = one_word_changed(combo, int(numbers.integers(3)), numbers)
        pictures = [weather(picture, numbers) for picture in to_uint8(render(draw_scenes(shown, numbers)))]
        text = captions(combo)[int(numbers.integers(4))]
        seen = [measure(picture, text) for picture in pictures]
        vote = collect_votes(people, seen[0], seen[1], n=1, generator=numbers)[0]
        texts.append(text)
        first.append(pictures[0])
        second.append(pictures[1])
        labels.append(vote.label_0)
        first_combo.append(COMBOS.index(shown[0]))
        if i % 1000 == 999:
            progress.say(f"{i + 1}/{n} rendered pairs voted on")
    return {
        "texts": texts,
        "first": np.stack(first),
        "second": np.stack(second),
        "labels": torch.tensor(labels),
        "first_combo": np.array(first_combo),
    }


def read_votes(parquet: Path) -> dict[str, Any]:
    """Votes of a Pick-a-Pic file, one row each."""
    import pyarrow.parquet as pq

    rows = pq.read_table(parquet, columns=["caption", "jpg_0", "jpg_1", "label_0"]).to_pylist()
    pictures = [
        np.stack([np.asarray(Image.open(io.BytesIO(row[side])).convert("RGB")) for row in rows])
        for side in ("jpg_0", "jpg_1")
    ]
    return {
        "texts": [row["caption"] for row in rows],
        "first": pictures[0],
        "second": pictures[1],
        "labels": torch.tensor([row["label_0"] for row in rows], dtype=torch.float32),
    }


def vote_loss(
    model: Any, ids: torch.Tensor, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """PickScore's loss and the embeddings of the first pictures, [n, 64]."""
    text = embed(model, ids=ids)
    left, right = embed(model, pixels=torch.cat([first, second])).chunk(2)
    margin = model.logit_scale.exp() * (text * (left - right)).sum(-1)
    return torch.nn.functional.binary_cross_entropy_with_logits(margin, labels), left


def caption_loss(model: Any, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Pick the right caption among it and its one-word changes. ids [n, captions, length], right first."""
    texts = embed(model, ids=ids.flatten(0, 1)).view(*ids.shape[:2], -1)
    logits = model.logit_scale.exp() * torch.einsum("nd,nkd->nk", images, texts)
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(images), dtype=torch.long))


def save_reward(model: Any, tokenizer: Any, out: Path) -> None:
    """A CLIPModel folder in float16 with tokenizer and CLIPImageProcessor's settings."""
    half = build_reward(tokenizer)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    config = out / "config.json"  # weights are stored in float16 but opened in float32
    text = {**json.loads(config.read_text()), "dtype": "float32"}
    for side in ("text_config", "vision_config"):
        text[side].pop("dtype", None)
    config.write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(out)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def train(*, steps: int, seed: int, out: Path, start: Path | None, pairs: Path | None, peak_lr: float) -> None:
    """Train on votes about rendered pairs and captions (no `pairs`), or on a file of votes."""
    progress = Progress("reward", snapshot_minutes=3)
    torch.manual_seed(seed)
    numbers = np.random.default_rng(seed)
    tokenizer = build_tokenizer()
    model = build_reward(tokenizer)
    if start is not None:
        from transformers import CLIPModel

        model = CLIPModel.from_pretrained(start, dtype=torch.float32)
    model.train()
    votes = rendered_votes(RENDERED_PAIRS, seed, progress) if pairs is None else read_votes(pairs)
    ids = tokenize(tokenizer, votes["texts"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak_lr, total_steps=steps, pct_start=0.1)
    recent: list[float] = []
    for step in range(steps):
        rows = numbers.integers(len(ids), size=BATCH)
        flip = slice(None, None, -1) if numbers.random() < 0.5 else slice(None)  # every shape is its mirror image
        first, second = (to_pixels(np.ascontiguousarray(votes[side][rows][:, :, flip])) for side in ("first", "second"))
        loss, images = vote_loss(model, ids[rows], first, second, votes["labels"][rows])
        recent.append(loss.item())
        if pairs is None:
            named = [COMBOS[i] for i in votes["first_combo"][rows]]
            options = [[c, *(one_word_changed(c, part, numbers) for part in range(3))] for c in named]
            texts = [captions(o)[int(numbers.integers(4))] for four in options for o in four]
            loss = loss + caption_loss(model, images, tokenize(tokenizer, texts).view(BATCH, 4, -1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100.0)))
        if (step + 1) % 100 == 0:
            scale = float(model.logit_scale.detach().exp())
            progress.say(f"step {step + 1}/{steps} vote loss {np.mean(recent[-100:]):.4f} scale {scale:.1f}")
        if progress.snapshot_due():
            save_reward(model, tokenizer, out)
    save_reward(model, tokenizer, out)
    progress.say("done")


if __name__ == "__main__":
    parser = arguments("Train the shapes world's reward.", steps=3000, out=Path("reward"))
    parser.add_argument("--start", type=Path, help="reward folder to go on from")
    parser.add_argument("--pairs", type=Path, help="parquet of votes; without it, learn from renders")
    parser.add_argument("--lr", type=float, default=1e-3)
    chosen = parser.parse_args()
    train(
        steps=chosen.steps,
        seed=chosen.seed,
        out=chosen.out,
        start=chosen.start,
        pairs=chosen.pairs,
        peak_lr=chosen.lr,
    )
