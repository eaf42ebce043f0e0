"""Faster ways to the same numbers: policy and reference stay alike, and nothing but rounding changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.families.speed import RECOMPILE_LIMIT, Shadow
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Runtime
from tests.families.test_unet_networks import micro_batch, nudge


def load(folder: Path, **runtime: object) -> UNetDenoiser:
    return load_unet(folder, runtime=Runtime(**runtime))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_a_shadow_says_what_the_policy_says_before_and_after_an_update(model, request) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    plain = load(folder, precision="bf16")
    shadowed = load(folder, precision="bf16", shadow_weights=True)
    x, t, cond = micro_batch(plain)
    optimisers = [
        torch.optim.AdamW(one.network.parameters(), lr=1e-2, fused=True) for one in (plain, shadowed)
    ]
    seen = []
    for _ in range(2):
        with torch.no_grad():
            one, two = plain.predict(x, t, cond), shadowed.predict(x, t, cond)
        assert torch.equal(one, two), "the same rounding, to the last bit"
        seen.append(two)
        for denoiser, optimiser in zip((plain, shadowed), optimisers, strict=True):
            denoiser.predict(x, t, cond).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
    assert not torch.equal(*seen), "it followed"


def test_a_shadow_casts_once_an_update(sd_folder) -> None:
    denoiser = load(sd_folder, precision="bf16")
    shadow = Shadow(denoiser.network, torch.bfloat16)
    versions = {id(p): p._version for p in shadow.network.parameters()}
    assert all(p._version == versions[id(p)] for p in shadow.network.parameters()), "no change, no copy"
    nudge(denoiser)
    assert any(p._version != versions[id(p)] for p in shadow.network.parameters())
    weight = denoiser.network.conv_in.weight
    assert torch.equal(shadow.network.conv_in.weight, weight.bfloat16()) and weight.dtype is torch.float32


def test_a_lora_needs_no_shadow(sd_folder) -> None:
    runtime = Runtime(precision="bf16", shadow_weights=True)
    adapted = load_unet(sd_folder, runtime=runtime, adapter=Adapter(rank=2, alpha=6.0))
    assert adapted.networks._shadow is None


@pytest.mark.parametrize("options", [{"channels_last": True}, {"attention": "math"}, {"attention": "cudnn"}])
def test_layout_and_kernels_change_rounding_alike(sd_folder, options) -> None:
    plain, other = load(sd_folder), load(sd_folder, **options)
    x, t, cond = micro_batch(plain)
    one, two = plain.predict(x, t, cond), other.predict(x, t, cond)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert torch.equal(two, other.predict(x, t, cond, reference=True)), "equal weights, equal outputs"


@pytest.mark.slow
def test_compiled_blocks_say_the_same_for_both_networks(sd_folder) -> None:
    plain, compiled = load(sd_folder), load(sd_folder, compile=True)
    assert torch._dynamo.config.recompile_limit >= RECOMPILE_LIMIT
    x, t, cond = micro_batch(plain)
    one, two = plain.predict(x, t, cond), compiled.predict(x, t, cond)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    reference = compiled.predict(x, t, cond, reference=True)
    with torch.no_grad():
        assert torch.equal(compiled.predict(x, t, cond), reference), "the same graphs, the same numbers"
    # A graph that keeps activations for a backward is fused, and so rounded, in another way.
    torch.testing.assert_close(two.detach(), reference, rtol=1e-5, atol=1e-5)
    names = dict(copy.deepcopy(plain.network).named_parameters()).keys()
    assert dict(compiled.network.named_parameters()).keys() == names, "checkpoints keep their names"
