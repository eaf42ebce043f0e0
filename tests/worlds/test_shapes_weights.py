"""What is shipped opens with the plain libraries, and does what the README says."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from smpo.worlds.shapes import BASE, PAIRS, REWARD, WEIGHTS
from smpo.worlds.shapes.judge import measure
from smpo.worlds.shapes.prompts import parse, split_of


def test_import_is_cheap() -> None:
    code = "import sys, smpo.worlds.shapes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_everything_shipped_is_small() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 9e6


def test_base_opens_with_diffusers_and_draws_what_is_asked() -> None:
    torch = pytest.importorskip("torch")
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(BASE, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    captions = [
        f"a {colour} {shape} on a {background} background"
        for colour, shape, background in [
            ("red", "circle", "black"),
            ("blue", "square", "white"),
            ("yellow", "star", "navy"),
            ("pink", "triangle", "grey"),
        ]
    ]
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    pictures = pipeline(captions, generator=seeds, guidance_scale=3.0, num_inference_steps=10, output_type="np").images
    assert pictures.shape == (4, 64, 64, 3)
    seen = [measure((p * 255).astype(np.uint8), c) for p, c in zip(pictures, captions, strict=True)]
    assert sum(m["right_colour"] + m["right_background"] for m in seen) >= 6


def test_the_tokenizer_survives_words_of_other_worlds() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(BASE / "tokenizer")
    assert tokenizer.tokenize("a red circle")[1] == "red</w>"
    ids = tokenizer("Ünïcode, 😀 & words\nof all kinds").input_ids
    assert max(ids) < len(tokenizer) and ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]


def test_reward_opens_with_transformers_and_prefers_the_named_colour() -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    from smpo.worlds.shapes.scene import Scene, render, to_uint8

    model = CLIPModel.from_pretrained(REWARD)
    tokenizer = AutoTokenizer.from_pretrained(REWARD)
    processor = CLIPImageProcessorPil.from_pretrained(REWARD)
    scenes = [Scene(c, "circle", "black", 0.4, 0.5, 0.5, 0.9) for c in ("red", "blue", "green")]
    pixels = processor([Image.fromarray(p) for p in to_uint8(render(scenes))], return_tensors="pt")
    text = tokenizer(
        ["a red circle on a black background"],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    with torch.no_grad():
        scores = model(**text, pixel_values=pixels.pixel_values).logits_per_image[:, 0]
    assert int(scores.argmax()) == 0


def test_pairs_have_pickapics_columns_and_honest_labels() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(PAIRS)
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    text = (
        "best_image_uid",
        "caption",
        "created_at",
        "image_0_uid",
        "image_0_url",
        "image_1_uid",
        "image_1_url",
    )
    assert kinds == {
        **dict.fromkeys((*text, "model_0", "model_1"), "string"),
        **dict.fromkeys(("are_different", "has_label"), "bool"),
        **dict.fromkeys(("jpg_0", "jpg_1"), "binary"),
        **dict.fromkeys(("label_0", "label_1"), "double"),
        **dict.fromkeys(("ranking_id", "user_id", "num_example_per_prompt"), "int64"),
    }
    rows = table.to_pylist()
    best = {1.0: "image_0_uid", 0.0: "image_1_uid"}
    for row in rows:
        assert row["label_0"] + row["label_1"] == 1.0
        assert row["has_label"] == (row["label_0"] != 0.5)
        assert row["best_image_uid"] == (row[best[row["label_0"]]] if row["has_label"] else "none")
        assert split_of(parse(row["caption"])) == "training"
    assert Image.open(io.BytesIO(rows[0]["jpg_0"])).size == (64, 64)
    pairs = [(row["image_0_uid"], row["image_1_uid"]) for row in rows]
    assert len(set(pairs)) < len(pairs), "some pairs have several votes"
