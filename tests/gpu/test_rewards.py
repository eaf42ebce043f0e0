"""Rewards score on the device what they score on a CPU, to the rounding of their arithmetic."""

from __future__ import annotations

import pytest
import torch

from smpo.components.rewards.aesthetic import LaionAesthetic
from smpo.components.rewards.clip_preference import ClipPreference
from smpo.components.rewards.image_reward import ImageReward
from smpo.components.rewards.mps import MPS
from smpo.kinds import Runtime
from tests.rewards.conftest import PROMPTS, images, small_clip  # noqa: F401 -- fixtures
from tests.rewards.published import aesthetic, hps, image_reward, mps  # noqa: F401 -- fixtures

pytestmark = pytest.mark.gpu
FLOAT, TENSOR_FLOAT = 2.0**-24, 2.0**-11
"""Unit roundoffs of float32, and of TensorFloat-32, in which cuDNN convolves float32 unless told otherwise."""
GROWTH = 64
"""Rounding of one operator, times this, bounds that of a score: two layers of some ten operators each, in which errors
add up like a random walk (5 fold), and a cosine or head that multiplies them once more. Of the largest score."""


@pytest.fixture
def rewards(small_clip, hps, aesthetic, image_reward, mps):  # noqa: F811
    clip = str(small_clip)
    return {
        "PickScore": ClipPreference(weights=clip),
        "CLIP, scaled": ClipPreference(weights=clip, scaled=True),
        "HPS": ClipPreference(weights=str(hps[1]), file="HPS.pt", processor=clip, pictures="whole"),
        "aesthetic": LaionAesthetic(weights=str(aesthetic), file="head.pth", clip=clip),
        "ImageReward": ImageReward(weights=str(image_reward), tokenizer=str(image_reward)),
        "MPS": MPS(weights=str(mps), clip=clip),
    }


def error(reward, device, pictures):
    """The largest difference of a score on the device from one on the CPU, as a share of the largest score; and the
    scores' spread likewise."""
    there, here = (reward.load(Runtime(device=where, batch=2))(pictures, PROMPTS) for where in (device.type, "cpu"))
    assert there.device.type == "cpu" and there.dtype == torch.float32 and there.shape == (len(PROMPTS),)
    largest = here.abs().max()
    return float((there - here).abs().max() / largest), float(here.std() / largest)


NAMES = ["PickScore", "CLIP, scaled", "HPS", "aesthetic", "ImageReward", "MPS"]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_a_cpu(device, numbers, exact_float32, rewards, images, name):  # noqa: F811
    off, spread = error(rewards[name], device, images)
    numbers()
    assert spread > 0.01, "the pictures are told apart"
    assert off < GROWTH * FLOAT


@pytest.mark.parametrize("name", NAMES)
def test_tensor_cores_move_scores_by_their_rounding(device, numbers, rewards, images, name):  # noqa: F811
    off, _ = error(rewards[name], device, images)
    numbers()
    assert off < GROWTH * TENSOR_FLOAT
