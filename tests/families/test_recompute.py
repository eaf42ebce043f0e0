"""What the backward pass computes again changes nothing but the work and the memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smpo.families.loading import load_unet
from smpo.kinds import Runtime
from tests.families.test_unet_networks import micro_batch


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
