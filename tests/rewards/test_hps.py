"""HPSv2 against open_clip's arithmetic, written down independently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from smpo.errors import MachineError
from smpo.kinds import Runtime, Scorer
from smpo.rewards.networks.clip_like import load_clip_scorer
from smpo.rewards.networks.preprocessing import WholePicture
from tests.rewards.published import OpenClip

Pictures = list[Image.Image]


def hps_scorer(folder: Path, clip: Path, **settings: Any) -> Scorer:
    return load_clip_scorer(
        folder, file="HPS.pt", processor=clip, pictures="whole", runtime=Runtime(batch=2), **settings
    )


@pytest.mark.parametrize("antialias", [True, False])
def test_hps_is_open_clips_cosine(
    hps: tuple[OpenClip, Path], small_clip: Path, images: Pictures, prompts: list[str], antialias: bool
) -> None:
    from transformers import CLIPTokenizer

    network, folder = hps
    words = [prompt.replace("&amp;", "&") for prompt in prompts]  # open_clip's tokenizer resolves entities
    tokens = CLIPTokenizer.from_pretrained(small_clip)(
        words, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    ).input_ids
    tokens[tokens.cumsum(1).eq(0)] = 0
    layout = WholePicture(32, antialias)
    pixels = torch.from_numpy(np.stack([layout(image) for image in images]))
    with torch.no_grad():
        expected = network(pixels, tokens)
    found = hps_scorer(folder, small_clip, antialias=antialias)(images, prompts)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_hps_keys_tell_checkpoints_and_antialiasing_apart(
    hps: tuple[OpenClip, Path], small_clip: Path, tmp_path: Path
) -> None:
    network, folder = hps
    key = hps_scorer(folder, small_clip).key
    assert key == hps_scorer(folder, small_clip).key
    assert key != hps_scorer(folder, small_clip, antialias=False).key
    with torch.no_grad():
        network.text_projection[0, 0] += 1
    torch.save({"state_dict": network.state_dict()}, tmp_path / "HPS.pt")
    with torch.no_grad():
        network.text_projection[0, 0] -= 1
    assert key != hps_scorer(tmp_path, small_clip).key


def test_a_checkpoint_of_another_architecture_is_named(
    hps: tuple[OpenClip, Path], small_clip: Path, tmp_path: Path
) -> None:
    tensors = hps[0].state_dict()
    tensors["visual.proj"] = torch.zeros(32, 8)
    tensors["score_predictor"] = torch.zeros(1)
    torch.save({"state_dict": tensors}, tmp_path / "HPS.pt")
    with pytest.raises(
        MachineError, match=r"score_predictor is unknown; visual_projection\.weight is of another shape"
    ):
        hps_scorer(tmp_path, small_clip)
    with pytest.raises(MachineError, match=r"has no HPS_v2\.1\.pt") as caught:
        load_clip_scorer(tmp_path, file="HPS_v2.1.pt", processor=small_clip, runtime=Runtime())
    assert "it has HPS.pt" in (caught.value.help or "")


def test_files_that_would_run_code_are_refused(small_clip: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "HPS.pt")  # a pickled module, as MPS publishes
    with pytest.raises(MachineError, match="does not run code from weight files") as caught:
        hps_scorer(tmp_path, small_clip)
    assert "save_file" in (caught.value.help or "")
