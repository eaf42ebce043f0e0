"""Optimisers against each other's formulas, and what is said where one can't work."""

import sys

import pytest
import torch

from smpo.components.optimisers import Adafactor, AdamW, AdamW8bit
from smpo.engine.checkpoints.checkpoint import restore
from smpo.engine.checkpoints.train_state import TrainState
from smpo.errors import MachineError
from tests.cli.words import SMALL_PLANE, smpo
from tests.engine.states import save


def descended(optimiser, steps, lr=1e-3):
    """A layer that learns another; large enough for moments in 8 bits."""
    random = torch.Generator().manual_seed(0)
    layer, target = torch.nn.Parameter(torch.zeros(64, 128)), torch.randn(64, 128, generator=random)
    inputs = torch.randn(steps, 32, 128, generator=random)
    rule = optimiser.build([layer], lr)
    for x in inputs:
        (x @ (layer - target).T).square().mean().backward()
        rule.step()
        rule.zero_grad()
    return layer.detach(), rule


def test_moments_of_a_byte_go_where_adamw_goes():
    whole, _ = descended(AdamW(), 30)
    small, rule = descended(AdamW8bit(), 30)
    assert (small - whole).norm() < 0.05 * whole.norm()
    assert not torch.equal(small, whole)
    first, _ = descended(AdamW8bit(), 1)
    assert torch.allclose(first, descended(AdamW(), 1)[0], atol=2e-5), "the first step is lr in each direction"
    (state,) = rule.state.values()
    held = sum(value.numel() * value.element_size() for name, value in state.items() if name in KEPT)
    assert held == pytest.approx(AdamW8bit.state_bytes * 64 * 128)
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8


KEPT = ("state1", "state2", "absmax1", "absmax2")


def test_adafactor_keeps_rows_and_columns():
    """Shazeer and Stern 2018, algorithm 4, with a fixed rate: the first update is the gradient over the root of its
    factored square, clipped to a root mean square of 1."""
    layer = torch.nn.Parameter(torch.ones(6, 5))
    gradient = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    rule = Adafactor(weight_decay=0.1).build([layer], 0.01)
    layer.grad = gradient.clone()
    rule.step()
    square = gradient.double().square() + 1e-30
    rows, columns = square.mean(1), square.mean(0)
    step = gradient.double() / (rows[:, None] * columns[None] / rows.mean()).sqrt()
    step = step / max(1.0, step.square().mean().sqrt().item())
    assert torch.allclose(layer.detach().double(), 1 - 0.01 * 0.1 - 0.01 * step, atol=1e-6)
    (state,) = rule.state.values()
    assert state["exp_avg_sq_row"].shape == (6,) and state["exp_avg_sq_col"].shape == (5,)


def test_without_the_package_it_is_said_and_how_to_get_it(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL_PLANE)
    sets = ("small.yaml", "-s", "train.optimiser=adamw-8bit")
    assert smpo(capfd, "plan", *sets).code == 0
    real = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr(
        "smpo.registry.requirements.find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    for command in ("plan", "run"):
        said = smpo(capfd, command, *sets)
        assert said.code == 3
        assert "`adamw-8bit` needs `bitsandbytes`, which is not installed" in " ".join((said.err + said.out).split())
        assert "smpo[8bit]" in said.err + said.out
    with pytest.raises(MachineError, match="bitsandbytes"):
        AdamW8bit().build([torch.nn.Parameter(torch.ones(2))], 1e-3)


def test_a_device_without_kernels_is_named():
    with pytest.raises(MachineError, match="can't work on mps"):
        AdamW8bit().build([_Elsewhere(torch.ones(2))], 1e-3)


class _Elsewhere(torch.nn.Parameter):
    device = torch.device("mps")


def test_what_is_kept_goes_on_where_it_was(tmp_path):
    """Bytes, scales and the tables that all parameters share go through a checkpoint's files."""

    def layers():
        random = torch.Generator().manual_seed(2)
        return {name: torch.nn.Parameter(torch.randn(64, 80, generator=random)) for name in ("a", "b")}

    def descend(parameters, rule):
        for _ in range(3):
            sum(one.square().sum() for one in parameters.values()).backward()
            rule.step()
            rule.zero_grad()

    one, other = layers(), layers()
    rule, twin = (AdamW8bit().build(each.values(), 1e-2) for each in (one, other))
    descend(one, rule)
    save(tmp_path, 3, TrainState(one, rule), spec_hash="x", keep=1)
    assert restore(tmp_path, TrainState(other, twin), spec_hash="x", say=pytest.fail).step == 3
    descend(one, rule)
    descend(other, twin)
    for name in one:
        assert torch.equal(one[name], other[name])
