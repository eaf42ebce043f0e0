"""Distances from the base against closed forms: equal networks, a network that is off by a constant, known angles."""

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.evaluation.results.drift import (
    DriftProbe,
    distances,
    error_distances,
    feature_distances,
    picture_distances,
)
from smpo.families.plane import load_plane
from smpo.kinds import DRIFT_TIMESTEPS, Prompt

WORDS = ["north", "east", "north", "south-west"]
POINTS = list(np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))


class Angles:
    """Embeds a grey picture as a unit vector at that many degrees."""

    key = "angles"

    def embed(self, pictures):
        degrees = torch.tensor([float(p.getpixel((0, 0))[0]) for p in pictures]).deg2rad()
        return torch.stack([degrees.cos(), degrees.sin()], dim=1)


def grey(level: int, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), (level,) * 3)


def shifted(by: float):
    """The plane's base, whose policy sees `by` more noise everywhere."""
    denoiser = load_plane()
    last = [m for m in denoiser.policy.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert last.out_features == 2
    with torch.no_grad():
        last.bias += by
    return denoiser


def probe(denoiser, batch: int = 3) -> DriftProbe:
    return DriftProbe.of(denoiser, WORDS, [5, 6, 7, 2**47], POINTS, batch)


def test_a_network_that_is_off_by_a_constant_is_that_far_away():
    denoiser = shifted(0.25)
    asked = probe(denoiser)
    ours, base = asked.predictions(denoiser), asked.predictions(denoiser, reference=True)
    assert ours.shape == (4, DRIFT_TIMESTEPS, 2, 1, 1) and asked.passes == 4 * DRIFT_TIMESTEPS
    assert error_distances(ours, base) == pytest.approx(0.25**2, rel=1e-4)
    assert not error_distances(base, base).any()


def test_an_untouched_policy_is_nowhere_else():
    denoiser = load_plane()
    asked = probe(denoiser)
    assert torch.equal(asked.predictions(denoiser), asked.predictions(denoiser, reference=True))


def test_what_is_asked_depends_neither_on_the_batch_nor_on_the_company():
    denoiser = shifted(0.1)
    whole = probe(denoiser, batch=4).predictions(denoiser)
    torch.testing.assert_close(probe(denoiser, batch=1).predictions(denoiser), whole, rtol=1e-5, atol=1e-6)
    alone = DriftProbe.of(denoiser, WORDS[1:2], [6], POINTS[1:2], 8).predictions(denoiser)
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-5, atol=1e-6)


def test_features_turn_by_an_angle():
    found = feature_distances({"a": Angles(), "none": object()}, [grey(60), grey(10)], [grey(0), grey(10)])
    assert list(found) == ["a"], "only judges with an embedding can say"
    assert found["a"] == pytest.approx([1 - np.cos(np.deg2rad(60)), 0], abs=1e-7)


def test_pictures_differ_by_their_pixels_and_points_by_their_distance():
    assert picture_distances([grey(51)], [grey(0)]) == pytest.approx([0.2])
    assert picture_distances([grey(51, side=256)], [grey(0, side=256)]) == pytest.approx([0.2])
    assert picture_distances([np.array([3.0, 4.0])], [np.zeros(2)]) == pytest.approx([5.0])


def test_means_have_intervals_in_clusters_and_what_is_not_finite_is_left_out():
    prompts = [Prompt(word, group=word) for word in WORDS]
    policy, base = [np.array([float(k), 0.0]) for k in (1, 2, 6, np.nan)], [np.zeros(2)] * 4
    errors = (torch.full((4, 1, 2, 1, 1), 2.0), torch.zeros(4, 1, 2, 1, 1))
    drift = distances(prompts, {}, policy, base, errors, passes=64)
    picture, error = drift.distances
    assert picture.value == pytest.approx(3) and picture.low < 3 < picture.high
    assert (error.value, error.low, error.high) == (4, 4, 4)
    assert drift.metrics() == {"drift/picture": pytest.approx(3), "drift/error": 4}
    assert drift.to_dict()["passes"] == 64 and "error 4 [4, 4] on 4 prompts" in drift.sentence()
    one = distances(prompts[:1], {}, policy[:1], base[:1], None)
    assert one.distances[0].low is None and [d.kind for d in one.distances] == ["picture"]


def test_who_was_taught_with_a_prefix_is_measured_with_it():
    class Reader:
        """Sees as much noise as its prompt has letters; knows no pictures."""

        device, schedule = torch.device("cpu"), load_plane().schedule

        def encode_prompts(self, prompts):
            return {"letters": torch.tensor([[float(len(prompt))] for prompt in prompts])}

        def predict(self, x_t, times, cond, reference=False):
            return cond.tensors["letters"][:, :, None, None].expand_as(x_t)

    asked = probe(load_plane())
    plainly, with_words = (asked.predictions(Reader(), prefix=prefix) for prefix in ("", "good "))
    assert error_distances(with_words, plainly) == pytest.approx(25)
