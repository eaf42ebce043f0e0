"""Policy and reference are equal to the last bit before the first update, in every precision and setting.

A preference loss multiplies the difference of the two networks by thousands: one other kernel in one of them, and
training starts from noise instead of ln 2.
"""

from __future__ import annotations

import math

import pytest
import torch

from smpo.maths.losses import error_gap
from tests.gpu.small import WAYS, asked, load

pytestmark = pytest.mark.gpu
BETA = 5000.0
SETTINGS = [
    {},
    {"channels_last": True},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": "selective"},
    {"shadow_weights": True},
    {"offload_reference": True},
    {"attention": "cudnn"},
    {"attention": "flash"},
    {"attention": "efficient"},
    {"attention": "math"},
    {
        "channels_last": True,
        "gradient_checkpointing": "selective",
        "shadow_weights": True,
        "attention": "cudnn",
    },
]


def words(settings):
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "default"


CASES = [("sdxl", "full", one) for one in SETTINGS]
CASES += [("sdxl", "LoRA", SETTINGS[place]) for place in (0, 1, 2, 3, 6)]
CASES += [("sd", way, one) for way in WAYS for one in SETTINGS[:2]]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("arch", "way", "settings"), CASES, ids=lambda value: words(value) if isinstance(value, dict) else value
)
def test_policy_and_reference_are_equal(models, device, numbers, precision_of, arch, settings, way, precision):
    denoiser = load(models, arch, device, way=way, precision=precision_of(precision), **settings)
    x, t, cond = asked(denoiser)
    policy, reference = denoiser.predict(x, t, cond), denoiser.predict(x, t, cond, reference=True)
    with torch.no_grad():
        walking = denoiser.predict(x, t, cond)  # as in an inversion by the policy
    margin = -BETA / 2 * error_gap(torch.randn_like(x), policy.detach(), reference).double()
    losses = torch.nn.functional.softplus(-margin).tolist()
    different = [int((one != reference).sum()) for one in (policy, walking)]
    numbers()
    assert torch.isfinite(policy).all() and float(policy.detach().std()) > 0
    assert different == [0, 0], f"of {reference.numel()} numbers, with gradients and without"
    assert losses == [math.log(2)] * len(losses)
