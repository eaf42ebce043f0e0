"""Policy and reference: equal at the start to the last bit, and only the policy learns."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from smpo.errors import MachineError, RunError
from smpo.families.files.saved_folder import LoadSnippet
from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.families.pipelines import open_pipeline, policy_and_reference
from smpo.families.policy_reference import Arithmetic, PolicyAndReference
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning, Denoiser, Runtime
from smpo.maths.losses import error_gap

LORA = Adapter(rank=2, alpha=6.0)
WAYS = [None, LORA, Adapter(rank=2, alpha=6.0, dropout=0.5), Adapter(rank=2, dora=True)]


def trainable_state(denoiser: UNetDenoiser) -> dict[str, Tensor]:
    """The trained parameters by name, not copied: all of the UNet, or the adapter."""
    return {name: p.detach() for name, p in denoiser.network.named_parameters() if p.requires_grad}


def micro_batch(denoiser: UNetDenoiser, n: int = 4) -> tuple[Tensor, Tensor, Conditioning]:
    random = torch.Generator().manual_seed(0)
    cond = Conditioning(denoiser.encode_prompts([f"prompt number {i}" for i in range(n)]))
    side = float(denoiser.stack.resolution)
    cond = cond.merged({"size_ids": torch.tensor([[side, side, 0, 0, side, side]]).repeat(n, 1)})
    return (
        torch.randn(n, *denoiser.latent_shape, generator=random),
        torch.randint(0, 1000, (n,), generator=random),
        cond,
    )


def nudge(denoiser: UNetDenoiser, amount: float = 0.05) -> None:
    """Move every trained parameter, as a training would."""
    random = torch.Generator().manual_seed(1)
    for value in trainable_state(denoiser).values():
        value.add_(amount * torch.randn(value.shape, generator=random))


def gradients(denoiser: UNetDenoiser) -> dict[str, Tensor]:
    denoiser.network.zero_grad()
    x, t, cond = micro_batch(denoiser)
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    policy = denoiser.predict(x, t, cond)
    reference = denoiser.predict(x, t, cond, reference=True)  # adapters go off and on between forward and backward
    error_gap(target, policy, reference).sum().backward()
    return {name: p.grad for name, p in denoiser.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("adapter", WAYS, ids=["full", "lora", "dropout", "dora"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_equal_weights_give_equal_outputs_and_a_first_loss_of_ln_2(
    request: pytest.FixtureRequest, model: str, adapter: Adapter | None, precision: str
) -> None:
    folder = request.getfixturevalue(f"{model}_folder")
    denoiser = load_unet(folder, adapter=adapter, runtime=Runtime(precision=precision))  # type: ignore[arg-type]
    x, t, cond = micro_batch(denoiser)
    policy, reference = denoiser.predict(x, t, cond), denoiser.predict(x, t, cond, reference=True)
    assert policy.dtype == reference.dtype == torch.float32
    assert policy.requires_grad and not reference.requires_grad
    assert torch.equal(policy, reference)
    margin = -2500 * error_gap(torch.randn_like(x), policy, reference).detach().double()
    assert float(nn.functional.softplus(-margin).mean()) == math.log(2)


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_float16_is_kept_alike_too(sd_folder: Path, adapter: Adapter | None) -> None:
    """Training in fp16 scales its loss and belongs on GPUs; whether policy and reference agree can be seen anywhere."""
    stack = open_pipeline(sd_folder, variant=None, resolution=None)
    reference = policy_and_reference(stack.pipeline, adapter, torch.float16)
    arithmetic = Arithmetic(torch.device("cpu"), "fp16", 4)
    networks = PolicyAndReference(stack.pipeline.unet, reference, arithmetic=arithmetic)
    denoiser = UNetDenoiser(stack, networks, keys=("", ""), opening=LoadSnippet((), ()), origin={})
    x, t, cond = micro_batch(denoiser)
    policy, original = denoiser.predict(x, t, cond), denoiser.predict(x, t, cond, reference=True)
    assert torch.equal(policy, original) and torch.isfinite(policy).all()
    exact = load_unet(sd_folder, adapter=adapter, runtime=Runtime()).predict(x, t, cond)
    assert 0 < float((policy - exact).detach().abs().max()) < 0.01


def test_the_reference_stays_where_the_policy_was(sd_folder: Path) -> None:
    for adapter in (None, LORA):
        denoiser = load_unet(sd_folder, adapter=adapter, runtime=Runtime())
        x, t, cond = micro_batch(denoiser)
        before = denoiser.predict(x, t, cond, reference=True)
        nudge(denoiser)
        assert torch.equal(denoiser.predict(x, t, cond, reference=True), before)
        assert not torch.allclose(denoiser.predict(x, t, cond), before, atol=1e-4)


def test_gradients_reach_trained_parameters_and_no_others(sd_folder: Path) -> None:
    full = load_unet(sd_folder, runtime=Runtime())
    assert set(gradients(full)) == {name for name, _ in full.network.named_parameters()}

    lora = load_unet(sd_folder, adapter=LORA, runtime=Runtime())
    nudge(lora)  # with B = 0 the gradient of A is zero
    found = gradients(lora)
    assert set(found) == set(trainable_state(lora))
    assert found and all("lora_" in name and float(g.abs().sum()) > 0 for name, g in found.items())


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_checkpointing_changes_nothing(sd_folder: Path, adapter: Adapter | None, precision: str) -> None:
    def run(checkpointing: bool) -> dict[str, Tensor]:
        runtime = Runtime(precision=precision, gradient_checkpointing=checkpointing)  # type: ignore[arg-type]
        denoiser = load_unet(sd_folder, adapter=adapter, runtime=runtime)
        nudge(denoiser)
        assert denoiser.network.is_gradient_checkpointing == checkpointing
        return gradients(denoiser)

    plain, checkpointed = run(False), run(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name


def test_frozen_weights_are_stored_in_half_and_norms_are_not(sd_folder: Path) -> None:
    runtime = Runtime(precision="bf16")
    for adapter in (None, LORA):
        denoiser = load_unet(sd_folder, adapter=adapter, runtime=runtime)
        frozen = denoiser.networks.reference if adapter is None else denoiser.network
        assert frozen is not None
        assert frozen.conv_in.weight.dtype == torch.bfloat16
        assert frozen.conv_norm_out.weight.dtype == torch.float32
        assert {p.dtype for p in trainable_state(denoiser).values()} == {torch.float32}


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_updates_that_bfloat16_cannot_hold_add_up(sd_folder: Path, adapter: Adapter | None) -> None:
    """A step of 1e-6 is lost in a bfloat16 weight of 0.1, whose neighbours are 5e-4 away; the master weights keep it,
    and what the network computes with follows them."""
    denoiser = load_unet(sd_folder, adapter=adapter, runtime=Runtime(precision="bf16"))
    x, t, cond = micro_batch(denoiser)
    with torch.no_grad():
        first = denoiser.predict(x, t, cond)
    before = {name: value.clone() for name, value in trainable_state(denoiser).items()}
    optimiser = torch.optim.AdamW(
        [p for p in denoiser.network.parameters() if p.requires_grad], lr=1e-6, weight_decay=0.0
    )
    moved = []
    for step in range(1, 201):
        for name, parameter in denoiser.network.named_parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(before[name])  # Adam's step is then the learning rate
        optimiser.step()
        if step in (1, 200):
            after = trainable_state(denoiser)
            moved.append(max(float((before[name] - after[name]).abs().max()) for name in before))
    assert moved[0] == pytest.approx(1e-6, rel=0.1) and moved[1] == pytest.approx(2e-4, rel=0.05)
    large = torch.cat([value[value.abs() > 0.01] for value in before.values()]).bfloat16()
    assert len(large) and torch.equal(large - 1e-6, large), "in bfloat16 none of them would have moved"
    with torch.no_grad():
        assert not torch.equal(denoiser.predict(x, t, cond), first)


def test_dropout_acts_on_the_loss_pass_alone(sd_folder: Path) -> None:
    denoiser = load_unet(sd_folder, adapter=Adapter(rank=2, dropout=0.5), runtime=Runtime())
    nudge(denoiser)
    x, t, cond = micro_batch(denoiser)
    assert not torch.equal(denoiser.predict(x, t, cond), denoiser.predict(x, t, cond))
    with torch.no_grad():
        assert torch.equal(denoiser.predict(x, t, cond), denoiser.predict(x, t, cond))
        one, two = (denoiser.predict(x, t, cond, inverting=True) for _ in range(2))
        assert torch.equal(one, two)
    assert not torch.equal(denoiser.predict(x, t, cond), denoiser.predict(x, t, cond)), "and it is on again"


def test_a_wrapped_policy_is_used_with_gradients_and_only_then(sd_folder: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, *args: object, **options: object) -> object:
            self.calls += 1
            return self.module(*args, **options)

    denoiser = load_unet(sd_folder, adapter=LORA, runtime=Runtime())
    x, t, cond = micro_batch(denoiser)
    wrapper = Wrapper(denoiser.policy)
    denoiser.policy = wrapper
    policy = denoiser.predict(x, t, cond)
    assert torch.equal(policy, denoiser.predict(x, t, cond, reference=True))
    with torch.no_grad():
        denoiser.predict(x, t, cond)
    denoiser.sample(["a"], [0], guidance=1.0, steps=1)
    assert wrapper.calls == 1
    assert all(not name.startswith("module.") for name in trainable_state(denoiser))


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
def test_distributed_data_parallel_sees_all_gradients(sd_folder: Path, adapter: Adapter | None, tmp_path: Path) -> None:
    """Adapters go off and on between forward and backward: the reducer must not lose its parameters."""
    alone = load_unet(sd_folder, adapter=adapter, runtime=Runtime())
    nudge(alone)
    expected = gradients(alone)
    wrapped = load_unet(sd_folder, adapter=adapter, runtime=Runtime())
    nudge(wrapped)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped.policy = nn.parallel.DistributedDataParallel(wrapped.policy)
        for _ in range(2):
            found = gradients(wrapped)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in found)
    finally:
        dist.destroy_process_group()


def test_adapters_start_alike_everywhere_and_leave_the_global_generator_alone(sd_folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    first = load_unet(sd_folder, adapter=LORA, runtime=Runtime())
    torch.manual_seed(8)
    second = load_unet(sd_folder, adapter=LORA, runtime=Runtime())
    other = load_unet(sd_folder, adapter=Adapter(rank=2, seed=1), runtime=Runtime())
    for name, value in trainable_state(first).items():
        assert torch.equal(value, trainable_state(second)[name])
        assert ("lora_B" in name) or not torch.equal(value, trainable_state(other)[name])
    torch.manual_seed(7)
    from smpo.families.lora import attach

    attach(copy.deepcopy(load_unet(sd_folder, runtime=Runtime()).network), LORA)
    assert torch.equal(torch.get_rng_state(), expected)


def test_what_can_not_work_is_refused_in_words(sd_folder: Path) -> None:
    with pytest.raises(MachineError, match="fp16 is for GPUs"):
        load_unet(sd_folder, runtime=Runtime(precision="fp16"))
    with pytest.raises(RunError, match="called like one of to_nothing"):
        load_unet(sd_folder, adapter=Adapter(targets=("to_nothing",)), runtime=Runtime())
    with pytest.raises(RunError, match="multiples of 4"):
        load_unet(sd_folder, resolution=30, runtime=Runtime())
    assert load_unet(sd_folder, resolution=40, runtime=Runtime()).latent_shape == (4, 20, 20)


def test_it_is_a_denoiser(sd_folder: Path) -> None:
    denoiser: Denoiser = load_unet(sd_folder, runtime=Runtime(precision="bf16"))
    assert denoiser.latent_shape == (4, 16, 16)
    assert denoiser.schedule.T == 1000 and denoiser.device.type == "cpu"
