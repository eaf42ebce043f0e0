"""Rewards in 16 bits: scores move by their rounding, p by what that allows, and no score of one precision is taken for
another's.

Roundings of a relative size of at most u (2^-11 in fp16, 2^-8 in bf16) reach an embedding six times in each half of a
block (norm, maps in, weights, their sum, map out, residual), and four times outside of blocks. Independent, they add to
u sqrt(12 blocks + 4) of its length, and a cosine moves by that of both towers; p = sigmoid(difference / range) by at
most a quarter of twice that, over the range.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.components.smoothings import Likelihood
from smpo.experiment import ExperimentSpec
from smpo.kinds import Reward, Runtime, ScoreStats
from smpo.registry.resolve import resolve
from smpo.rewards.networks.aesthetic import load_aesthetic_scorer
from smpo.rewards.networks.clip_like import load_clip_scorer
from smpo.rewards.networks.image_reward import load_image_reward
from smpo.rewards.networks.mps import load_mps

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
ROUNDING = {"fp16": 2**-11, "bf16": 2**-8}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reward, list[Any], list[str]]:
    """A CLIP that was trained, and forty pairs: winners, then losers."""
    cache = tmp_path_factory.mktemp("cache")
    spec = resolve(QUICKSTART, skeleton=ExperimentSpec, sets=["data.limit=40"]).spec
    assert spec.reward is not None
    table = spec.data.load(Runtime(cache=cache))
    pairs = [table[row] for row in range(40)]
    names = [pair.winner for pair in pairs] + [pair.loser for pair in pairs]
    return spec.reward, [table.picture(name) for name in names], 2 * [pair.prompt for pair in pairs]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_scores_and_p_move_by_rounding_and_no_further(
    shapes: tuple[Reward, list[Any], list[str]], precision: str
) -> None:
    reward, pictures, prompts = shapes
    plain = reward.load(Runtime())
    half = reward.model_copy(update={"precision": precision}).load(Runtime())
    before, after = plain(pictures, prompts), half(pictures, prompts)
    config = plain._model.config  # type: ignore[attr-defined]
    towers = (config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers)
    allowed = ROUNDING[precision] * sum((12 * blocks + 4) ** 0.5 for blocks in towers)
    moved = (after - before).abs()
    assert after.dtype == torch.float32 and 0 < float(moved.max()) <= allowed

    low, high = float(before.min()), float(before.max())
    smoothing = Likelihood(low=low, high=high)
    share, stats = torch.ones(40).double(), ScoreStats(low, high, 80)
    p, q = (smoothing(*scores.double().chunk(2), share, stats) for scores in (before, after))
    assert 0 < float((p - q).abs().max()) <= allowed / 2 / (high - low)


def test_precisions_have_keys_of_their_own_and_float32_the_old_one(small_clip: Path) -> None:
    keys = {name: load_clip_scorer(small_clip, precision=name, runtime=Runtime()).key for name in ROUNDING}  # type: ignore[arg-type]
    plain = load_clip_scorer(small_clip, runtime=Runtime()).key
    assert len({plain, *keys.values()}) == 3
    assert load_clip_scorer(small_clip, precision="fp32", runtime=Runtime()).key == plain


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_network_runs_in_16_bits(
    precision: Any,
    small_clip: Path,
    aesthetic: Path,
    image_reward: Path,
    mps: Path,
    images: Any,
    prompts: Any,
) -> None:
    def loaded(name: Any) -> list[Any]:
        runtime = Runtime(batch=4)
        return [
            load_aesthetic_scorer(aesthetic, file="head.pth", clip=small_clip, precision=name, runtime=runtime),
            load_image_reward(
                image_reward, file="ImageReward.pt", tokenizer=image_reward, precision=name, runtime=runtime
            ),
            load_mps(
                mps, file="model.safetensors", clip=small_clip, condition="light, color", threshold=0.01,
                precision=name, runtime=runtime,
            ),
        ]  # fmt: skip

    for plain, half in zip(loaded("fp32"), loaded(precision), strict=True):
        before, after = plain(images, prompts), half(images, prompts)
        spread = float(before.std()) + float(before.abs().mean())
        assert half.key != plain.key and after.dtype == torch.float32
        assert 0 < float((after - before).abs().max()) <= 64 * ROUNDING[precision] * spread, type(half)
