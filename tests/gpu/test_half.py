"""16 bits against float32: predictions and gradients are off by rounding, and margins by no more than that makes."""

from __future__ import annotations

import pytest
import torch

from smpo.maths.losses import error_gap
from tests.gpu.small import WAYS, asked, load, move

pytestmark = pytest.mark.gpu
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11}
"""Unit roundoff: half the distance of neighbouring numbers, as a share of them."""
GROWTH = 8
"""Of rounding, from one operator to a prediction: errors of some 64 operators in a row add up like a random walk."""
BACKWARD = 2 * GROWTH
"""Of rounding, to a gradient: the way there and back."""
PAIRS, BETA, MOVED = 16, 5000.0, 0.01
SCALE = 1024.0
"""Of the loss, as fp16 wants it."""


def margins(policy, reference, target):
    winner, loser = error_gap(target, policy, reference).double().chunk(2)
    return -BETA / 2 * (winner - loser)


def facts(models, device, way, precision):
    """Of a policy that has moved predictions and margins `[PAIRS]`, and of one that hasn't the loss's gradient."""
    denoiser = load(models, "sdxl", device, way=way, precision=precision)
    x, t, cond = asked(denoiser, 2 * PAIRS)
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(device)
    reference = denoiser.predict(x, t, cond, reference=True)
    margin = margins(denoiser.predict(x, t, cond), reference, target)
    (SCALE * torch.nn.functional.softplus(-margin).mean()).backward()
    gradient = [p.grad.double().flatten().cpu() / SCALE for p in denoiser.network.parameters() if p.grad is not None]
    move(denoiser, MOVED)
    with torch.no_grad():
        policy = denoiser.predict(x, t, cond)
    return {
        "policy": policy.double().cpu(),
        "reference": reference.double().cpu(),
        "margin": margins(policy, reference, target).cpu(),
        "gradient": torch.cat(gradient),
    }


@pytest.fixture(scope="module")
def exact(models, device):
    known = {}

    def of(way):
        if way not in known:
            known[way] = facts(models, device, way, "fp32")
        return known[way]

    return of


def rms(values):
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("way", WAYS)
def test_sixteen_bits_are_off_by_rounding(models, device, numbers, exact_float32, precision_of, exact, way, precision):
    full, unit = exact(way), UNIT[precision]
    half = facts(models, device, way, precision_of(precision))
    numbers()
    off = {name: rms(half[name] - full[name]) / rms(full[name]) for name in ("policy", "reference")}
    moved = rms(full["policy"] - full["reference"]) / rms(full["policy"])
    noise = float((half["margin"] - full["margin"]).std() / full["margin"].std())
    cosine = float(torch.nn.functional.cosine_similarity(half["gradient"], full["gradient"], dim=0))
    angle = max(0.0, 2 * (1 - cosine)) ** 0.5
    print(f"{way} {precision}: predictions {off}, move {moved:.2g}, margins {noise:.2g}, gradient {angle:.2g}")
    assert moved > unit / 2, "the policy has moved by more than rounding hides"
    assert 0 < off["policy"] < GROWTH * unit and 0 < off["reference"] < GROWTH * unit, "of the prediction's size"
    # Errors of both networks that are independent of each other and of the target, against the move that is the signal.
    assert noise < 2**0.5 * max(off.values()) / moved, "standard deviation, in units of the signal's"
    if (device.type, precision) != ("cpu", "fp16"):  # oneDNN adds up a convolution's fp16 gradients in fp16
        assert 0 < angle < BACKWARD * unit, f"cosine {cosine}"
