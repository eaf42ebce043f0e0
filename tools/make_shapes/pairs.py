"""Sample pairs from the base, let the annotators vote, and write Pick-a-Pic v2's columns.

Each row is one vote; a pair in three has three of them. The url of an image has its recipe:
caption, seed, guidance and steps. Images are JPEG at quality 95 without chroma subsampling (2 kB each).

    python -m tools.make_shapes.pairs --steps 800 --seed 2 --out train.parquet
"""

from __future__ import annotations

import io
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from smpo.worlds.shapes import BASE
from smpo.worlds.shapes.judge import measure
from smpo.worlds.shapes.prompts import SPLITS, Split, prompts
from tools.make_shapes.annotators import collect_votes, panel
from tools.make_shapes.progress import Progress, arguments

GUIDANCE = 2.0
SAMPLING_STEPS = 20
BATCH = 32
MANY_VOTES_EVERY = 3
MANY_VOTES = 3
CREATED = "2026-11-23"
SEED_STRIDE = 1_000_000


def load_base(folder: Path = BASE) -> Any:
    """The base pipeline, in float32 and silent."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: Any, captions: list[str], seeds: list[int], *, guidance: float, steps: int = SAMPLING_STEPS
) -> NDArray[np.uint8]:
    """One picture for each caption and seed: [n, 64, 64, 3]. A seed gives the same picture in any batch."""
    drawn = []
    for start in range(0, len(captions), BATCH):
        chosen = slice(start, start + BATCH)
        pictures = pipeline(
            captions[chosen],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[chosen]],
            guidance_scale=guidance,
            num_inference_steps=steps,
            output_type="np",
        ).images
        drawn.append(np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8))
    return np.concatenate(drawn)


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode one picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def make_rows(pipeline: Any, *, pairs: int, seed: int, split: Split, progress: Progress) -> list[dict[str, Any]]:
    """Sample, measure and vote: one row per vote, in the order of the pairs."""
    numbers = np.random.default_rng(seed)
    people = panel()
    pool = prompts(split)
    order = [int(i) for _ in range(-(-pairs // len(pool))) for i in numbers.permutation(len(pool))][:pairs]
    rows: list[dict[str, Any]] = []
    for start in range(0, pairs, BATCH):
        captions = [pool[i] for i in order[start : start + BATCH] for _ in range(2)]
        seeds = [seed * SEED_STRIDE + 2 * start + k for k in range(len(captions))]
        pictures = sample(pipeline, captions, seeds, guidance=GUIDANCE)
        files = [jpeg(picture) for picture in pictures]
        seen = [measure(Image.open(io.BytesIO(file)), caption) for file, caption in zip(files, captions, strict=True)]
        urls = [f"shapes-base:?seed={s}&guidance={GUIDANCE}&steps={SAMPLING_STEPS}" for s in seeds]
        uids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"{u}&prompt={c}")) for u, c in zip(urls, captions, strict=True)]
        for k in range(0, len(captions), 2):
            pair = (start + k // 2) % MANY_VOTES_EVERY
            n = MANY_VOTES if pair == 0 else 1
            for vote in collect_votes(people, seen[k], seen[k + 1], n=n, generator=numbers):
                best = {1.0: uids[k], 0.0: uids[k + 1]}.get(vote.label_0, "none")
                rows.append(
                    {
                        "are_different": True,
                        "best_image_uid": best,
                        "caption": captions[k],
                        "created_at": CREATED,
                        "has_label": best != "none",
                        "image_0_uid": uids[k],
                        "image_0_url": urls[k],
                        "image_1_uid": uids[k + 1],
                        "image_1_url": urls[k + 1],
                        "jpg_0": files[k],
                        "jpg_1": files[k + 1],
                        "label_0": vote.label_0,
                        "label_1": 1.0 - vote.label_0,
                        "model_0": "shapes-base",
                        "model_1": "shapes-base",
                        "ranking_id": len(rows),
                        "user_id": vote.user_id,
                    }
                )
        if (start // BATCH) % 10 == 9:
            progress.say(f"{start + BATCH}/{pairs} pairs")
    counts = Counter(row["caption"] for row in rows)
    return [{**row, "num_example_per_prompt": counts[row["caption"]]} for row in rows]


def write_parquet(rows: list[dict[str, Any]], out: Path) -> None:
    """Write rows with Pick-a-Pic v2's names and types; replaces the file in one move."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {bool: pa.bool_(), str: pa.string(), bytes: pa.binary(), float: pa.float64(), int: pa.int64()}
    schema = pa.schema([(name, kinds[type(value)]) for name, value in rows[0].items()])
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_suffix(".new")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), fresh, compression="zstd")
    fresh.replace(out)


def main() -> None:
    """Command line: how many pairs, of which split, from which base."""
    parser = arguments("Sample voted pairs from the base.", steps=800, out=Path("train.parquet"))
    parser.add_argument("--base", type=Path, default=BASE, help="pipeline folder")
    parser.add_argument("--split", choices=SPLITS, default="training")
    options = parser.parse_args()
    progress = Progress("pairs")
    rows = make_rows(
        load_base(options.base),
        pairs=options.steps,
        seed=options.seed,
        split=cast(Split, options.split),
        progress=progress,
    )
    write_parquet(rows, options.out)
    ties = np.mean([not row["has_label"] for row in rows])
    progress.say(f"done: {options.steps} pairs, {len(rows)} votes, {ties:.3f} ties, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
