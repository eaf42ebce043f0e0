"""Preference probabilities: golden labels and the laws they obey."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smpo.maths.smoothing import label_smoothing, min_max, signed_weight, softmax_preference, votes

from .conftest import f64

scores = st.floats(-5, 5, allow_nan=False)
probability = st.floats(0, 1)


def test_golden_labels(golden, close) -> None:
    g = golden["B_labels"]
    raw = f64(g["raw_scores_image0_image1"])
    r = min_max(raw, g["r_min"], g["r_max"])
    close(r, g["r_norm"])
    p = softmax_preference(r[:, 0], r[:, 1])
    close(p, g["p_image0"])
    close(g["gamma"] * p, g["alpha_image0"])
    w = signed_weight(p, g["gamma"])
    close(w, g["weight_signed_2alpha_minus_gamma"])
    # Winner first is the same thing seen from the image with the higher score.
    close(torch.maximum(p, 1 - p), g["p_winner"])
    close(g["gamma"] * torch.maximum(p, 1 - p), g["alpha_winner"])
    close(w.abs(), g["weight_winner_first"])
    assert (p < 0.5).int().tolist() == g["winner_index(0 if tie)"]


def test_golden_labels_clamped(golden, close) -> None:
    g = golden["B_labels"]
    c = g["clamped_to_[0,1]"]
    r = min_max(f64(g["raw_scores_image0_image1"]), g["r_min"], g["r_max"], clamp=True)
    p = softmax_preference(r[:, 0], r[:, 1])
    close(r, c["r_norm"])
    close(p, c["p_image0"])
    close(signed_weight(p, g["gamma"]), c["weight_signed"])


@given(scores, scores, st.floats(0.1, 10))
def test_preference_is_a_probability_that_swaps(a: float, b: float, temperature: float) -> None:
    p = softmax_preference(f64([a]), f64([b]), temperature=temperature)
    q = softmax_preference(f64([b]), f64([a]), temperature=temperature)
    assert 0 <= p <= 1
    torch.testing.assert_close(p + q, f64([1.0]))
    if a > b:
        assert p >= 0.5
    # Two formulas of method.md 1.1 for the same number.
    torch.testing.assert_close(signed_weight(p, 10.0), f64([10 * math.tanh((a - b) / temperature / 2)]))


@given(probability, st.floats(0, 0.5))
def test_label_smoothing_commutes_with_swapping_and_never_sharpens(p: float, eps: float) -> None:
    q = label_smoothing(f64([p]), eps)
    torch.testing.assert_close(label_smoothing(1 - f64([p]), eps), 1 - q)
    assert abs(q - 0.5) <= abs(p - 0.5) + 1e-12


def test_label_smoothing_of_hard_labels() -> None:
    torch.testing.assert_close(label_smoothing(f64([1, 0, 0.5]), 0.1), f64([0.9, 0.1, 0.5]))


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.0, 1.0]))
def test_votes(wins: int, losses: int, prior: float) -> None:
    p = votes(torch.tensor([wins]), torch.tensor([losses]), prior=prior)
    q = votes(torch.tensor([losses]), torch.tensor([wins]), prior=prior)
    torch.testing.assert_close(p + q, torch.ones(1))
    total = wins + losses + 2 * prior
    assert p.item() == pytest.approx((wins + prior) / total if total else 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: min_max(f64([0.5]), 1.0, 1.0), "increasing"),
        (lambda: softmax_preference(f64([1]), f64([0]), temperature=0), "positive"),
        (lambda: label_smoothing(f64([1]), 0.6), "between 0 and 1/2"),
        (lambda: votes(f64([1]), f64([1]), prior=-1), "negative"),
    ],
)
def test_impossible_settings_are_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
