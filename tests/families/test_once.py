"""What is computed once a window, or kept instead of computed again, changes nothing but the work."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smpo.components.inversions import ReNoise
from smpo.engine.passes import EACH, followers
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.kinds import Predictors, Runtime
from smpo.maths.draws import PositionDraws
from tests.families.test_unet_networks import micro_batch, nudge


def inverted(denoiser, cond, x0, by="policy"):
    """An inversion, and what it cost."""
    t = torch.tensor([150, 620] * (len(x0) // 2))
    with FlopCounterMode(display=False) as flops:
        found = ReNoise(steps=5, by=by)(
            x0,
            t,
            Predictors(**followers(denoiser, cond, None, EACH)),
            denoiser.schedule,
            PositionDraws(0, [0, 1]),
        )
    return found.x_t, flops.get_total_flops()


@pytest.mark.parametrize("option", ["prompts_once", "fused_qkv"])
@pytest.mark.parametrize("adapter", [None, Adapter(rank=2, alpha=6.0)], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_inversions_are_the_same_and_follow_the_weights(model, adapter, option, request) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    plain = load_unet(folder, runtime=Runtime(), adapter=adapter)
    once = load_unet(folder, runtime=Runtime(**{option: True}), adapter=adapter)
    x0, _, cond = micro_batch(plain)
    names = [name for name, _ in once.network.named_parameters()]
    for _ in range(2):
        for by in ("policy", "reference"):
            wanted, dear = inverted(plain, cond, x0, by)
            found, cheap = inverted(once, cond, x0, by)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
            assert cheap < dear if option == "prompts_once" else cheap == dear
        nudge(plain), nudge(once)
    assert [name for name, _ in once.network.named_parameters()] == names
    memory = next(iter(once.networks._once.values()))
    assert not memory._windows, "what was made for a window dies with it"


@pytest.mark.parametrize("option", ["prompts_once", "fused_qkv"])
def test_passes_that_are_compared_are_not_touched(sd_folder, option) -> None:
    plain, once = (load_unet(sd_folder, runtime=Runtime(**given)) for given in ({}, {option: True}))
    x, t, cond = micro_batch(plain)
    inverted(once, cond, x)
    for reference in (False, True):
        assert torch.equal(
            once.predict(x, t, cond, reference=reference), plain.predict(x, t, cond, reference=reference)
        )


def test_a_shadow_of_a_network_with_a_memory_has_its_own_weights(sd_folder) -> None:
    once = load_unet(sd_folder, runtime=Runtime(fused_qkv=True, prompts_once=True, eight_bit=True))
    x0, _, cond = micro_batch(once)
    inverted(once, cond, x0)
    from smpo.families.speed import Shadow

    copy = Shadow(once.network, torch.float32).network
    for parameter in copy.parameters():
        parameter.data.zero_()
    x, t, cond = micro_batch(once)
    assert not once.networks.ask(copy, x, t, once.stack.network_inputs(cond)).any()


def gradients(denoiser, x, t, cond):
    """Gradients of one pass, bytes that its backward kept, and FLOPs of both."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as flops:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = denoiser.predict(x, t, cond).square().sum()
        loss.backward()
    weights = {p.untyped_storage().data_ptr() for p in denoiser.network.parameters()}
    size = sum(number for place, number in kept.items() if place not in weights)
    return [p.grad for p in denoiser.network.parameters()], size, flops.get_total_flops()


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_selective_checkpointing_gives_the_same_gradients_and_repeats_no_product(model, request) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    found = {}
    for how in (False, "selective", True):
        denoiser = load_unet(folder, runtime=Runtime(gradient_checkpointing=how))
        found[how] = gradients(denoiser, *micro_batch(denoiser))
    for how in ("selective", True):
        assert all(torch.equal(one, two) for one, two in zip(found[how][0], found[False][0], strict=True))
    assert found["selective"][2] == found[False][2] < found[True][2]


def test_bytes_become_the_pixels_that_floats_were() -> None:
    from smpo.imaging import in_range

    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(in_range(every), every.float() / 127.5 - 1)
    assert in_range(every)[[0, 255]].tolist() == [-1, 1]
