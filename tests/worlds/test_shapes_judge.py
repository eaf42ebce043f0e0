"""The judge measures what was drawn and prefers what it says it prefers."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from smpo.worlds.shapes.judge import measure, score, scores
from smpo.worlds.shapes.prompts import COMBOS, captions
from smpo.worlds.shapes.scene import Scene, draw_scenes, render, to_uint8

PLAIN = Scene("red", "circle", "black", size=0.35, x=0.55, y=0.5, vividness=0.7)
PROMPT = "a red circle on a black background"


def judged(scene: Scene, prompt: str = PROMPT) -> float:
    return score(to_uint8(render([scene]))[0], prompt)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (replace(PLAIN, size=0.45), PLAIN),
        (replace(PLAIN, size=0.50), replace(PLAIN, size=0.70)),
        (replace(PLAIN, x=0.5), PLAIN),
        (replace(PLAIN, vividness=0.9), PLAIN),
        (PLAIN, replace(PLAIN, colour="blue")),
        (PLAIN, replace(PLAIN, shape="star")),
        (PLAIN, replace(PLAIN, background="white")),
    ],
    ids=["bigger", "not too big", "centred", "vivid", "right colour", "right shape", "right background"],
)
def test_the_better_picture_scores_higher(better: Scene, worse: Scene) -> None:
    assert judged(better) > judged(worse) + 0.01


def test_an_empty_picture_scores_nothing() -> None:
    assert score(np.full((64, 64, 3), 10, dtype=np.uint8), PROMPT) == 0.0


def test_every_render_is_read_right() -> None:
    scenes = draw_scenes(COMBOS, np.random.default_rng(5))
    for scene, picture in zip(scenes, to_uint8(render(scenes)), strict=True):
        seen = measure(picture, captions(scene.combo)[0])
        assert seen["right_colour"] == seen["right_shape"] == seen["right_background"] == 1.0, scene
        assert seen["area"] == pytest.approx(scene.size**2, abs=0.01)
        assert seen["vividness"] == pytest.approx(scene.vividness, abs=0.02)
        assert seen["offset"] == pytest.approx(np.hypot(scene.x - 0.5, scene.y - 0.5), abs=0.01)
        assert 0.0 <= seen["score"] <= 1.0


@pytest.mark.parametrize("side", [32, 128, 500])
def test_any_size_of_picture_will_do(side: int) -> None:
    picture = Image.fromarray(to_uint8(render([PLAIN], side=side))[0])
    assert score(picture, PROMPT) == pytest.approx(judged(PLAIN), abs=0.03)


def test_scores_are_in_the_order_of_the_pictures() -> None:
    pictures = to_uint8(render([PLAIN, replace(PLAIN, colour="blue")]))
    assert scores(pictures, [PROMPT, PROMPT]) == pytest.approx([judged(PLAIN), judged(replace(PLAIN, colour="blue"))])
