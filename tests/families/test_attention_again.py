"""A backward pass that computes attention again does so with the kernel that the forward pass was told to take."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from smpo.families.loading import load_unet
from smpo.families.speed import Speed
from smpo.kinds import Runtime
from tests.families.test_unet_networks import micro_batch


class Kernels(TorchDispatchMode):
    """Counts fused attention kernels."""

    seen = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen += "_scaled_dot_product_flash_attention_for_cpu" in str(operator)
        return operator(*args, **(kwargs or {}))


@pytest.fixture
def only_math(monkeypatch):
    """On a CPU torch heeds which kernels it may take, and not in which order."""
    monkeypatch.setattr(Speed, "attending", lambda self: sdpa_kernel([SDPBackend.MATH]))


@pytest.mark.parametrize("how", [True, "selective"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_gradients_are_those_of_the_chosen_kernel(model, how, request, only_math) -> None:
    folder, found = request.getfixturevalue(f"{model}_folder"), []
    for recompute in (False, how):
        denoiser = load_unet(folder, runtime=Runtime(gradient_checkpointing=recompute, attention="math"))
        x, t, cond = micro_batch(denoiser)
        with Kernels() as kernels:
            denoiser.predict(x, t, cond).square().sum().backward()
        assert kernels.seen == 0, "`math` has no fused kernel, forwards or backwards"
        found.append([p.grad for p in denoiser.network.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_without_a_choice_the_fused_kernel_is_taken(sd_folder) -> None:
    """The count above can fail."""
    denoiser = load_unet(sd_folder, runtime=Runtime(gradient_checkpointing=True))
    with Kernels() as kernels:
        denoiser.predict(*micro_batch(denoiser)).square().sum().backward()
    assert kernels.seen > 0
