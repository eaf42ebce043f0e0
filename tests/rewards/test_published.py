"""HPSv2, ImageReward, LAION's aesthetic predictor, MPS and CLIP score: laws that all of them keep.

Small random weights of the true architectures, in the published layouts. Each is compared with a computation written
down independently in a file of its own; the same was done once with the published packages' own code in
environments apart (docs/rewards.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.kinds import Runtime, Scorer
from smpo.rewards.networks.aesthetic import load_aesthetic_scorer
from smpo.rewards.networks.clip_like import load_clip_scorer
from smpo.rewards.networks.image_reward import load_image_reward
from smpo.rewards.networks.mps import load_mps
from tests.rewards.published import CONDITION, OpenClip

Pictures = list[Image.Image]


@pytest.fixture(scope="module")
def makers(
    hps: tuple[OpenClip, Path], aesthetic: Path, image_reward: Path, mps: Path, small_clip: Path
) -> dict[str, Callable[[int], Scorer]]:
    def runtime(batch: int) -> Runtime:
        return Runtime(batch=batch)

    return {
        "hps": lambda n: load_clip_scorer(
            hps[1], file="HPS.pt", processor=small_clip, pictures="whole", runtime=runtime(n)
        ),
        "clip-openai": lambda n: load_clip_scorer(small_clip, pictures="openai", runtime=runtime(n)),
        "aesthetic": lambda n: load_aesthetic_scorer(
            aesthetic, file="head.pth", clip=small_clip, runtime=runtime(n)
        ),
        "image-reward": lambda n: load_image_reward(
            image_reward, file="ImageReward.pt", tokenizer=image_reward, runtime=runtime(n)
        ),
        "mps": lambda n: load_mps(
            mps, file="model.safetensors", clip=small_clip, condition=CONDITION, threshold=0.3, runtime=runtime(n)
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["hps", "clip-openai", "aesthetic", "image-reward", "mps"])
def test_scores_depend_on_picture_and_prompt_alone(
    makers: dict[str, Callable[[int], Scorer]], name: str, images: Pictures, prompts: list[str]
) -> None:
    scorer, other = makers[name](3), makers[name](64)
    together = scorer(images, prompts)
    assert together.dtype == torch.float32 and together.shape == (6,) and not together.requires_grad
    assert together.device.type == "cpu" and scorer.key == other.key
    assert torch.equal(together, scorer(images, prompts))
    order = [5, 3, 0, 4, 1, 2]
    shuffled = other([images[i] for i in order], [prompts[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)
    alone = torch.cat([scorer([one], [text]) for one, text in zip(images, prompts, strict=True)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    assert torch.equal(scorer([np.asarray(images[1])], [prompts[1]]), scorer([images[1]], [prompts[1]]))
    assert scorer([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        scorer(images[:1], prompts[:2])


def test_keys_differ_between_all_of_them(makers: dict[str, Callable[[int], Scorer]]) -> None:
    keys = [make(1).key for make in makers.values()]
    assert len({*keys}) == len(keys) and all(len(key) == 32 for key in keys)
