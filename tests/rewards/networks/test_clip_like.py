"""CLIP rewards against transformers' own model and image processor, number for number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.errors import MachineError, RunError
from smpo.kinds import Runtime, Scorer
from smpo.rewards.networks.clip_like import ClipPreprocessing, load_clip_scorer

TERMS = 600
COSINE = 2 * TERMS * 2**-24
"""By how much two kernels' cosines of a picture and a prompt may differ: each goes through sums of some 600 terms in
all (192 pixels of a patch, then 32 or 40 at a time), each of which float32 rounds by 2^-24 of it at most. That is 7e-5;
scores of the pictures here differ by 1e-2."""

PROMPTS = ["a cat", "two dogs on a hill", "", "word " * 60, "a cat"]


def make_clip(folder: Path, side: int = 24) -> Path:
    """A random CLIP of two layers, saved with tokenizer and processor as one finds it on the hub."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=32)
    torch.manual_seed(0)
    shared = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(tokens),
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**shared, "image_size": side, "patch_size": 8},
        projection_dim=16,
    )
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # the initial one sees hardly any difference
        model.logit_scale.fill_(np.log(100.0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Larger and smaller than the network's square, odd, wide, tall; grey and with alpha."""
    numbers = np.random.default_rng(0)
    sizes = [(24, 24), (61, 37), (37, 61), (200, 33), (10, 14)]
    found = [Image.fromarray(numbers.integers(0, 256, (h, w, 3), dtype=np.uint8)).resize((w, h)) for h, w in sizes]
    return [found[0], found[1], found[2].convert("L"), found[3].convert("RGBA"), found[4]]


def genuine(folder: Path, pictures: list[Image.Image], prompts: list[str]) -> torch.Tensor:
    """Logits as the model cards compute them: transformers' processor, model and own normalisation."""
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder)
    tokens = CLIPTokenizer.from_pretrained(folder)(
        prompts, padding=True, truncation=True, max_length=32, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt").pixel_values
    with torch.no_grad():
        return model(**tokens, pixel_values=pixels).logits_per_image.diagonal()


def test_scores_are_those_of_transformers(clip_folder: Path, pictures: list[Image.Image]) -> None:
    expected = genuine(clip_folder, pictures, PROMPTS)
    assert float(expected.std()) > 1  # the test would see a mistake
    scaled: Scorer = load_clip_scorer(clip_folder, scaled=True, runtime=Runtime(batch=2))
    torch.testing.assert_close(scaled(pictures, PROMPTS), expected, rtol=1e-5, atol=1e-4)
    bare = load_clip_scorer(clip_folder, runtime=Runtime())(pictures, PROMPTS)
    torch.testing.assert_close(bare, expected / 100, rtol=1e-5, atol=1e-6)
    assert bare.dtype == torch.float32 and bare.shape == (5,) and not bare.requires_grad
    assert bare.abs().max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 20}},
        {"size": {"height": 20, "width": 31}, "do_center_crop": False},
        {
            "size": {"shortest_edge": 24},
            "crop_size": {"height": 31, "width": 40},
        },  # wider than the picture: black
        {"do_resize": False, "crop_size": {"height": 25, "width": 24}},
        {"size": {"shortest_edge": 24}, "resample": 2, "do_normalize": False},
        {"size": {"shortest_edge": 24}, "do_rescale": False},
        {"size": {"shortest_edge": 24}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    ],
)
def test_preprocessing_is_that_of_transformers_bit_for_bit(
    options: dict[str, Any], pictures: list[Image.Image], tmp_path: Path
) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(**options)
    processor.save_pretrained(tmp_path)
    ours = ClipPreprocessing.from_config(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    for picture in pictures:
        expected = processor([picture], return_tensors="np").pixel_values[0]
        assert np.array_equal(ours(picture), expected)


def test_old_processor_files_give_sizes_as_numbers() -> None:
    old = ClipPreprocessing.from_config({"size": 224, "crop_size": 224, "resample": 3})
    assert old == ClipPreprocessing.from_config({}) == ClipPreprocessing()
    with pytest.raises(RunError, match="longest_edge"):
        ClipPreprocessing.from_config({"size": {"longest_edge": 224}})


def test_scores_do_not_depend_on_the_rest_of_the_batch(clip_folder: Path, pictures: list[Image.Image]) -> None:
    scorer = load_clip_scorer(clip_folder, runtime=Runtime(batch=3))
    together = scorer(pictures, PROMPTS)
    assert torch.equal(together, scorer(pictures, PROMPTS))
    apart = torch.cat([scorer([p], [t]) for p, t in zip(pictures, PROMPTS, strict=True)])
    torch.testing.assert_close(together, apart, rtol=0, atol=COSINE)
    order = [3, 0, 4, 1, 2]
    shuffled = scorer([pictures[i] for i in order], [PROMPTS[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=COSINE)
    assert scorer([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        scorer(pictures[:1], PROMPTS[:2])


def test_tensors_and_objects_are_both_understood(clip_folder: Path, pictures: list[Image.Image]) -> None:
    """transformers 4 returned tensors; 5 returns objects."""
    scorer = load_clip_scorer(clip_folder, runtime=Runtime())
    expected = scorer(pictures, PROMPTS)
    model = scorer._model
    scorer._model = SimpleNamespace(
        get_image_features=lambda **k: model.get_image_features(**k).pooler_output,
        get_text_features=lambda **k: model.get_text_features(**k).pooler_output,
    )
    assert torch.equal(scorer(pictures, PROMPTS), expected)


def test_weights_in_half_are_scored_in_float32(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = shutil.copytree(clip_folder, tmp_path / "half")
    CLIPModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    scorer = load_clip_scorer(folder, runtime=Runtime())
    assert {p.dtype for p in scorer._model.parameters()} == {torch.float32}


def test_the_key_follows_weights_and_preprocessing(clip_folder: Path, tmp_path: Path) -> None:
    key = load_clip_scorer(clip_folder, runtime=Runtime()).key
    moved = shutil.copytree(clip_folder, tmp_path / "moved")
    assert load_clip_scorer(moved, runtime=Runtime(batch=7)).key == key
    assert load_clip_scorer(moved, scaled=True, runtime=Runtime()).key != key
    assert load_clip_scorer(moved, processor=clip_folder, runtime=Runtime()).key == key

    elsewhere = tmp_path / "processor"
    elsewhere.mkdir()
    for file in clip_folder.iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            shutil.copy(file, elsewhere)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, bare)
    separate = load_clip_scorer(bare, processor=elsewhere, runtime=Runtime())
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    whole = load_clip_scorer(moved, runtime=Runtime())
    assert torch.equal(separate([image], ["a"]), whole([image], ["a"]))
    assert separate.key == key  # the layout of files is not content

    path = moved / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "resample": 2}))
    assert load_clip_scorer(moved, runtime=Runtime()).key != key


def test_what_is_missing_is_named(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the reward `somebody/some-reward` is not on this machine") as caught:
        load_clip_scorer("somebody/some-reward", runtime=Runtime())
    assert "hf download somebody/some-reward" in (caught.value.help or "")
    wordless = shutil.copytree(clip_folder, tmp_path / "wordless")
    (wordless / "tokenizer.json").unlink()  # transformers would make a tokenizer that knows nothing
    with pytest.raises(MachineError, match="knows no words: its vocabulary is missing"):
        load_clip_scorer(wordless, runtime=Runtime())
    other = shutil.copytree(clip_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "projection_dim": 8}))
    with pytest.raises(MachineError, match=r"does not fit its config\.json: text_projection\.weight is \d+ x \d+ in"):
        load_clip_scorer(other, runtime=Runtime())
    (other / "config.json").unlink()  # or transformers would take a CLIP of its own choice
    with pytest.raises(MachineError, match=r"the reward in .* has no config\.json"):
        load_clip_scorer(other, processor=clip_folder, runtime=Runtime())
    folder = shutil.copytree(clip_folder, tmp_path / "copy")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(RunError, match=r"no preprocessor_config\.json") as caught_run:
        load_clip_scorer(folder, runtime=Runtime())
    assert "processor" in (caught_run.value.help or "")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MachineError, match="can't be read"):
        load_clip_scorer(folder, processor=clip_folder, runtime=Runtime())
