"""The shapes judge as a scorer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smpo.errors import RunError
from smpo.kinds import Scorer
from smpo.rewards.judges import ShapesJudgeScorer
from smpo.worlds.shapes import judge
from smpo.worlds.shapes.prompts import COMBOS, captions
from smpo.worlds.shapes.scene import draw_scenes, render


@pytest.fixture(scope="module")
def shown() -> tuple[list[np.ndarray], list[str]]:
    combos = list(COMBOS[:6])
    pixels = render(draw_scenes(combos, np.random.default_rng(0)))
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    return list(pixels), [captions(combo)[0] for combo in combos]


def test_scores_are_the_judge_s(shown: tuple[list[np.ndarray], list[str]]) -> None:
    pictures, prompts = shown
    scorer: Scorer = ShapesJudgeScorer()
    found = scorer(pictures, prompts)
    assert found.dtype == torch.float32 and found.shape == (6,)
    np.testing.assert_allclose(found.numpy(), judge.scores(pictures, prompts), rtol=1e-6)
    assert torch.equal(scorer(pictures[::-1], prompts[::-1]), found.flip(0))
    wrong = scorer(pictures, prompts[1:] + prompts[:1])
    assert float(found.mean()) > float(wrong.mean())


def test_parts_can_be_reported_alone(shown: tuple[list[np.ndarray], list[str]]) -> None:
    pictures, prompts = shown
    right = ShapesJudgeScorer("right_colour")
    assert set(right(pictures, prompts).tolist()) <= {0.0, 1.0}
    assert right.key != ShapesJudgeScorer().key == ShapesJudgeScorer("score").key
    with pytest.raises(RunError, match="no part 'beauty'") as caught:
        ShapesJudgeScorer("beauty")(pictures, prompts)
    assert "centring" in (caught.value.help or "")


def test_other_prompts_are_refused(shown: tuple[list[np.ndarray], list[str]]) -> None:
    with pytest.raises(RunError, match="not a caption of the shapes world"):
        ShapesJudgeScorer()(shown[0][:1], ["a cat"])
