"""Inversions in 8 bits: near what full precision says, refreshed with the weights, and of no concern to anything else.

The arithmetic is torch's own and runs on CPUs too, slowly; only the speed needs a GPU.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from smpo.engine.passes import EACH, Passes, followers
from smpo.errors import MachineError, RunError
from smpo.families import eight_bit
from smpo.families.eight_bit import EightBitLinear, need_eight_bits, replace_linears
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.kinds import Runtime
from tests.families.test_unet_networks import micro_batch, nudge


@pytest.fixture
def products() -> None:
    """Skips where oneDNN can't multiply in 8 bits."""
    one = torch.ones(16, 16).to(torch.float8_e4m3fn)
    try:
        torch._scaled_mm(
            one, one.t(), scale_a=torch.ones(()), scale_b=torch.ones(()), out_dtype=torch.float32
        )
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        capability = torch.backends.cpu.get_cpu_capability()
        pytest.skip(f"oneDNN has no matrix product of float8_e4m3fn on this CPU (capability {capability})")


@pytest.mark.usefixtures("products")
def test_a_layer_in_8_bits_is_right_to_its_three_bits_of_mantissa() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 48).requires_grad_(False), torch.randn(2, 5, 64)
    eight, exact = EightBitLinear(linear)(x), linear(x)
    assert eight.shape == exact.shape
    error = float((eight - exact).norm() / (exact - linear.bias).norm())
    assert 0.005 < error < 2**-4  # each number is off by at most a sixteenth of itself
    # What torch multiplied are the rounded numbers, scale and all.
    scales = [one.abs().max() / 448 for one in (x, linear.weight)]
    rounded = [
        (one / s).to(torch.float8_e4m3fn).float() * s
        for one, s in zip((x, linear.weight), scales, strict=True)
    ]
    torch.testing.assert_close(eight, rounded[0] @ rounded[1].T + linear.bias, rtol=1e-5, atol=1e-5)


def test_layers_of_other_sizes_and_adapters_stay() -> None:
    module = nn.ModuleDict({"a": nn.Linear(16, 32), "b": nn.Linear(20, 16), "lora_A": nn.Linear(32, 16)})
    assert len(replace_linears(module)) == 1 and isinstance(module["a"], EightBitLinear)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("adapter", [None, Adapter(rank=2, alpha=6.0)], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_only_inversions_are_asked_in_8_bits_and_they_follow_the_weights(
    model, adapter, request, monkeypatch
) -> None:
    monkeypatch.setattr(eight_bit, "ALIGNED", 1)  # the tests' networks are too small; a CPU takes any size
    folder = request.getfixturevalue(f"{model}_folder")
    denoiser = load_unet(folder, runtime=Runtime(eight_bit=True), adapter=adapter)
    plain = load_unet(folder, runtime=Runtime(), adapter=adapter)
    x, t, cond = micro_batch(plain)
    rows = torch.arange(len(x))

    def walked(reference: bool) -> torch.Tensor:
        found = followers(denoiser, cond, None, Passes(eight_bit=True))
        return found["reference" if reference else "policy"](x, t, rows)

    assert torch.equal(walked(False), walked(True)), "equal weights, equal outputs"
    before = walked(False)
    exact = followers(denoiser, cond, None, EACH)["policy"](x, t, rows)
    assert torch.equal(exact, followers(plain, cond, None, EACH)["policy"](x, t, rows))
    assert 0 < float((before - exact).norm() / exact.norm()) < 0.1
    nudge(denoiser)
    after = walked(False)
    assert not torch.equal(after, before) and torch.equal(walked(True), before), "the reference stays"
    torch.testing.assert_close(
        after, followers(denoiser, cond, None, EACH)["policy"](x, t, rows), rtol=0.3, atol=0.1
    )
    names = [name for name, _ in denoiser.network.named_parameters()]
    assert names == [name for name, _ in plain.network.named_parameters()], "the policy itself is as it was"


def test_a_machine_without_it_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="this run is on cpu"):
        need_eight_bits("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(MachineError, match=r"capability is 8\.0"):
        need_eight_bits("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    need_eight_bits("cuda")


def test_the_plane_has_no_such_arithmetic() -> None:
    from smpo.components.models import Plane

    with pytest.raises(RunError, match="8 bits"):
        Plane().load(Runtime(eight_bit=True))


def test_a_spec_asks_for_it_and_a_cpu_refuses_before_anything_is_loaded(tmp_path: Path) -> None:
    from smpo.app.hardware import live_runtime
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    plane = Path(__file__).parents[2] / "experiments" / "plane_smpo.yaml"
    known = resolve(plane, skeleton=ExperimentSpec).identity.spec_hash
    asked = resolve(plane, skeleton=ExperimentSpec, sets=["inversion.precision=fp8", "runtime.device=cpu"])
    assert asked.identity.spec_hash != known, "it changes results"
    with pytest.raises(MachineError, match="fp8"):
        live_runtime(asked.spec)
    assert copy.deepcopy(asked.spec.inversion).eight_bit
