"""Policy and reference run the same operators, with every setting; on a CPU they then give the same bits.

tests/pretended/test_operators.py compares the operators of the published sizes on a pretended GPU.
"""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO
from smpo.engine.monitoring.operators import first_difference, operators_of
from smpo.engine.noise_and_timesteps import StepConfig
from smpo.engine.step import StepOutput, compute_loss, invert_batch, run_policy, run_reference
from smpo.families import speed
from smpo.families.lora import Adapter
from smpo.families.operator_parity import keeping_nothing
from smpo.kinds import Conditioning, PairBatch
from smpo.maths.draws import PositionDraws
from tests.families.operators import SETTINGS, SMALL, denoiser, inputs, traces

LORA = Adapter(rank=2, alpha=6.0)
DORA = Adapter(rank=2, dora=True)
EAGER = [name for name in SETTINGS if name not in ("compile", "several")]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("arch", SMALL)
def test_a_network_that_is_trained_whole(arch: str, precision: str) -> None:
    found = traces(denoiser(SMALL[arch], "cpu", precision))
    assert found["policy"] == found["reference"] == found["without gradients"]
    assert len(found["policy"]) > 100


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "as it comes"])
def test_with_each_setting(setting: str) -> None:
    found = traces(denoiser(SMALL["sdxl"], "cpu", "bf16", **SETTINGS[setting]))
    assert found["policy"] == found["reference"] == found["without gradients"]


@pytest.mark.parametrize("adapter", [LORA, DORA, Adapter(rank=2, targets=("proj_in", "conv1", "to_k"))])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_adapter_adds_its_own_operators_and_changes_no_other(adapter: Adapter, precision: str) -> None:
    found = traces(denoiser(SMALL["sdxl"], "cpu", precision, adapter=adapter))
    assert first_difference(found["policy"], found["reference"]) is None
    assert len(found["policy"]) > len(found["reference"]) > 100


def test_a_linear_projection_that_reads_a_strided_input_would_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "contiguous_projections", lambda network: None)
    found = traces(denoiser(SMALL["sdxl"], "cpu", "fp32"))
    difference = first_difference(found["policy"], found["reference"])
    assert difference is not None and difference[1].startswith("bmm(")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arch", SMALL)
def test_prompts_that_are_a_view_of_others_change_no_operator(arch: str, precision: str) -> None:
    """A micro-batch of one pair has rows 0 and n of its update's 2n."""
    one = denoiser(SMALL[arch], "cpu", precision)
    x, t, about = inputs(one, 4)
    view = Conditioning({name: rows[::2] for name, rows in about.tensors.items()})
    assert not view.tensors["text"].is_contiguous()
    policy = operators_of(lambda: one.predict(x[::2], t[::2], view))
    with torch.no_grad():
        reference = operators_of(lambda: one.predict(x[::2], t[::2], view, reference=True))
    assert first_difference(policy, reference) is None and policy == reference


def test_a_policy_in_training_mode_would_differ_in_channels_last() -> None:
    one = denoiser(SMALL["sdxl"], "cpu", "bf16", channels_last=True)
    one.network.train()
    found = traces(one)
    assert first_difference(found["policy"], found["reference"]) is not None


def test_a_copy_of_a_network_runs_its_operators_and_saves_its_names() -> None:
    one = denoiser(SMALL["sdxl"], "cpu", "fp32")
    x, t, about = inputs(one)
    twin = copy.deepcopy(one.network)
    with torch.no_grad():
        same = one.networks.forward(twin, x, t, one.stack.network_inputs(about))
        assert torch.equal(same, one.predict(x, t, about))
    assert twin.state_dict().keys() == one.network.state_dict().keys()


def start(one: Any) -> Any:
    """What the first micro-batch of a run gives, and the noise that was found for it."""
    random = torch.Generator().manual_seed(2)
    x, _, about = inputs(one)
    batch = PairBatch(
        ids=["a", "b"],
        position=torch.arange(2),
        mean=torch.randn(x.shape, generator=random),
        std=torch.zeros(x.shape),
        conditioning=about,
        p=torch.tensor([0.7, 0.9], dtype=torch.float64),
    )
    found = invert_batch(
        batch,
        PositionDraws(0, batch.position),
        denoiser=one,
        inversion=ReNoise(steps=3, by="policy"),
        objective=(objective := SmPO(beta=5000.0)),
        settings=StepConfig(seed=0, t_min=100, t_max=900, posterior=False),
    )
    prepared = run_reference(found, one, objective)
    return compute_loss(prepared, run_policy(prepared, one), objective), found.noise


@pytest.mark.parametrize("setting", EAGER)
@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_loss_is_ln_2_to_the_last_bit(setting: str, adapter: Adapter | None, precision: str) -> None:
    outcome, _ = start(denoiser(SMALL["sdxl"], "cpu", precision, adapter=adapter, **SETTINGS[setting]))
    assert_at_reference(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_compiled_inversions_too(precision: str) -> None:
    """The noise that they find is another by rounding. In bf16 it is no further from float32's than the eager noise; in
    float32 each of 6 passes has some 300 operators, each of which may be off by half a unit in the last place."""
    eager, compiled = (denoiser(SMALL["sdxl"], "cpu", precision, compile=on) for on in (False, True))
    outcome, found = start(compiled)
    assert_at_reference(outcome)
    _, wanted = start(eager)
    if precision == "fp32":
        assert (found - wanted).norm() < 6 * 300 * 2**-24 * wanted.norm()
    else:
        _, exact = start(denoiser(SMALL["sdxl"], "cpu", "fp32"))
        assert (found - exact).norm() < 2 * (wanted - exact).norm()
    assert not torch.equal(found, wanted), "the blocks were compiled"


def assert_at_reference(outcome: StepOutput) -> None:
    assert outcome.margin.tolist() == [0.0, 0.0]
    assert outcome.loss.dtype in (torch.float32, torch.float64)
    assert outcome.loss.tolist() == torch.full((2,), math.log(2), dtype=outcome.loss.dtype).tolist()


def test_a_pass_that_keeps_nothing_lets_go_of_its_activations() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
    alive: list[weakref.ref[torch.Tensor]] = []
    for layer in layers[:-1]:
        layer.register_forward_hook(lambda module, given, output: alive.append(weakref.ref(output)))
    x = torch.randn(2, 4)
    kept = layers(x)
    assert kept.requires_grad and [one() is None for one in alive] == [False] * 4
    alive.clear()
    with torch.no_grad(), keeping_nothing():
        output = layers(x)
    assert output.requires_grad and [one() is None for one in alive] == [True] * 4
    with pytest.raises(RuntimeError, match="kept nothing"):
        output.sum().backward()


@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "lora"])
def test_without_gradients_outputs_have_no_past_and_inputs_stay_as_they_are(adapter: Adapter | None) -> None:
    one = denoiser(SMALL["sdxl"], "cpu", "fp32", adapter=adapter)
    x, t, about = inputs(one)
    outputs = [one.predict(x, t, about, reference=True), one.predict(x, t, about, inverting=True)]
    with torch.no_grad():
        outputs.append(one.predict(x, t, about))
    assert not any(one.requires_grad for one in (x, *outputs))
    assert torch.equal(outputs[0], outputs[2])
