"""Faster ways to the same numbers: policy and reference stay alike, and nothing but rounding changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.families.speed import RECOMPILE_LIMIT, HalfPrecisionCopy
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, Runtime
from tests.families.test_unet_networks import micro_batch, nudge


def load(folder: Path, **runtime: object) -> UNetDenoiser:
    return load_unet(folder, runtime=Runtime(**runtime))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_a_shadow_says_what_the_policy_says_before_and_after_an_update(model, request) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    plain = load(folder, precision="bf16")
    shadowed = load(folder, precision="bf16", shadow_weights=True)
    x, t, cond = micro_batch(plain)
    optimisers = [torch.optim.AdamW(one.network.parameters(), lr=1e-2, fused=True) for one in (plain, shadowed)]
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
    shadow = HalfPrecisionCopy(denoiser.network, torch.bfloat16)
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
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_invert_alone_and_nothing_that_is_compared_knows_them(sd_folder, precision) -> None:
    """Their rounding is another than the eager one, and no worse: both are held against the next better precision."""
    eager, compiled = load(sd_folder, precision=precision), load(sd_folder, precision=precision, compile=True)
    x, t, cond = micro_batch(eager)
    exact = exactly(sd_folder, precision, x, t, cond)
    unlike = []
    for reference in (False, True):
        wanted = eager.predict(x, t, cond, reference=reference).detach()
        assert torch.equal(compiled.predict(x, t, cond, reference=reference), wanted), "compared: eager"
        with torch.no_grad():
            assert torch.equal(compiled.predict(x, t, cond, reference=reference), wanted)
            found = compiled.predict(x, t, cond, reference=reference, inverting=True)
        assert (found - exact).norm() < 2 * (wanted - exact).norm()
        unlike.append(not torch.equal(found, wanted))
    assert all(unlike), "the blocks were compiled"
    assert torch._dynamo.config.recompile_limit >= RECOMPILE_LIMIT
    nudge(eager), nudge(compiled)
    with torch.no_grad():
        after = [one.predict(x, t, cond, inverting=True) for one in (eager, compiled)]
    assert (after[0] - after[1]).norm() < 0.1 * (after[0] - exact).norm(), "they follow the weights"
    names = dict(copy.deepcopy(eager.network).named_parameters()).keys()
    assert dict(compiled.network.named_parameters()).keys() == names, "checkpoints keep their names"


def exactly(folder: Path, precision: str, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """What the network computes in float32, or in float64 for float32."""
    one = load(folder)
    if precision == "fp32":
        inputs = {name: value.double() for name, value in one.stack.network_inputs(cond).items()}
        with torch.no_grad():
            return one.network.double()(x.double(), t, **inputs, return_dict=False)[0]
    return one.predict(x, t, cond).detach()


def test_compiled_blocks_are_in_use_only_inside(monkeypatch: pytest.MonkeyPatch, sd_folder) -> None:
    calls: list[str] = []

    def stand_in(forward):
        return lambda *given, **named: (calls.append("compiled"), forward(*given, **named))[1]

    monkeypatch.setattr(torch, "compile", stand_in)
    compiled = load(sd_folder, compile=True, gradient_checkpointing=True)
    x, t, cond = micro_batch(compiled)
    compiled.predict(x, t, cond).sum().backward()  # checkpointing runs blocks again
    compiled.predict(x, t, cond, reference=True)
    with torch.no_grad():
        compiled.predict(x, t, cond)
    compiled.sample(["a"], [0], guidance=1.0, steps=1)
    assert not calls
    for reference in (False, True):
        calls.clear()
        compiled.predict(x, t, cond, reference=reference, inverting=True)
        assert len(calls) > 5
    assert not any("forward" in vars(module) for module in compiled.network.modules())
