"""Scenes are what their numbers say, captions say what scenes are, and splits keep apart."""

import numpy as np
import pytest

from smpo.worlds.shapes.prompts import COMBOS, SPLITS, captions, combos, parse, prompts, split_of
from smpo.worlds.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, draw_scenes, render, to_uint8


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_the_area_that_its_size_says(shape: str) -> None:
    picture = render([Scene("red", shape, "black", size=0.4, x=0.5, y=0.5, vividness=1.0)])[0]
    black, red = BACKGROUNDS["black"][0], COLOURS["red"][0]
    assert (picture[..., 0] - black).mean() / (red - black) == pytest.approx(0.16, rel=0.01)


def test_no_drawn_object_touches_the_frame() -> None:
    scenes = draw_scenes(COMBOS * 3, np.random.default_rng(0))
    for scene, picture in zip(scenes, render(scenes), strict=True):
        empty = render([Scene(scene.colour, "circle", scene.background, 1e-3, 0.25, 0.25, 1.0)])[0]
        rim = np.ones(picture.shape[:2], dtype=bool)
        rim[1:-1, 1:-1] = False
        assert abs(picture - empty)[rim].max() < 0.02, scene


def test_vividness_moves_a_colour_from_grey_to_pure() -> None:
    pale, vivid = render([Scene("green", "square", "black", 0.5, 0.5, 0.5, v) for v in (0.0, 1.0)])
    assert pale[32, 32] == pytest.approx((0.5, 0.5, 0.5))
    assert vivid[32, 32] == pytest.approx(COLOURS["green"])


def test_same_seed_same_pictures() -> None:
    first, second = (to_uint8(render(draw_scenes(COMBOS[:5], np.random.default_rng(3)))) for _ in range(2))
    assert (first == second).all()


def test_every_caption_says_its_combo() -> None:
    assert all(parse(caption) == combo for combo in COMBOS for caption in captions(combo))


@pytest.mark.parametrize("text", ["", "a red circle", "a red blue circle on a black background", "a cat"])
def test_other_texts_are_refused_with_the_words_that_would_do(text: str) -> None:
    with pytest.raises(ValueError, match="one colour"):
        parse(text)


def test_splits_share_no_combo_and_leave_none_out() -> None:
    sets = [set(combos(split)) for split in SPLITS]
    assert sum(map(len, sets)) == len(set().union(*sets)) == len(COMBOS)
    assert len(prompts("untouched")) >= 200
    assert all(split_of(combo) == split for split in SPLITS for combo in combos(split))


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_knows_every_word(split: str) -> None:
    seen = [set(names) for names in zip(*combos(split), strict=True)]  # type: ignore[arg-type]
    assert seen == [set(COLOURS), set(SHAPES), set(BACKGROUNDS)]
