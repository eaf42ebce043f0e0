"""Whatever a run's state consists of, stopping after any update and going on in new objects changes no bit of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smpo.components.inversions import ReNoise
from smpo.components.objectives import DiffusionKTO, SmPO
from smpo.components.optimisers import Adafactor, AdamW
from smpo.engine.checkpoints.checkpoint import CheckpointWriter, restore
from smpo.engine.checkpoints.train_state import TrainState, snapshot
from smpo.engine.ema import ExponentialMovingAverage
from smpo.engine.loop import Session, fit
from tests.engine.toys import ToyDenoiser, toy_session

STEPS = 6


class EightBit(torch.optim.Optimizer):
    """Momentum kept in bytes with a scale for each tensor, nested as bitsandbytes nests it, and plain numbers."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": 0.9})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                known = state.get("quant")
                before = 0 if known is None else (known["codes"].float() - 128) * known["tables"][0]
                moment = group["momentum"] * before + p.grad
                scale = moment.abs().max().clamp_min(1e-12) / 127
                codes = (moment / scale).round().add(128).to(torch.uint8)
                state["quant"] = {"codes": codes, "tables": [scale, 8]}
                state["updates"] = state.get("updates", 0) + 1
                p.sub_(group["lr"] * moment)


OPTIMISERS = {
    "adamw": lambda parameters: AdamW().build(parameters, 1e-2),
    "adafactor": lambda parameters: Adafactor().build(parameters, 1e-2),
    "8 bit": lambda parameters: EightBit(parameters, 1e-2),
}


def with_lora(denoiser: ToyDenoiser) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(1)
    denoiser.policy.requires_grad_(False)
    config = LoraConfig(r=2, target_modules=["inner.0", "inner.2"], lora_dropout=0.3)
    denoiser.policy = inject_adapter_in_model(config, denoiser.policy)


def session(
    optimiser: str, *, ema: bool, lora: bool, fp16: bool, inversion: Any = None, objective: Any = None
) -> Session:
    made = toy_session(objective or SmPO(beta=50), inversion or ReNoise(steps=3), steps=STEPS, micro=4)
    if lora:
        with_lora(made.denoiser)  # type: ignore[arg-type]
    parameters = trained(made)
    made.optimiser = OPTIMISERS[optimiser](list(parameters.values()))
    made.average = ExponentialMovingAverage(parameters, 0.9) if ema else None
    if fp16:  # so large that it overflows at first, falls, and then rises at every other update
        made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
    return made


def trained(made: Session) -> dict[str, nn.Parameter]:
    return {name: p for name, p in made.denoiser.policy.named_parameters() if p.requires_grad}


def state(made: Session) -> TrainState:
    return TrainState(trained(made), made.optimiser, made.average, made.scaler, made.overflows)


def everything(made: Session) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    kept = snapshot(state(made), copy=True)
    return {name: dict(tensors) for name, tensors in kept.tensors.items()}, dict(kept.plain)


def same(one: Session, other: Session) -> None:
    (tensors, plain), (others, plains) = everything(one), everything(other)
    assert plain == plains
    assert tensors.keys() == others.keys()
    for file, content in tensors.items():
        assert content.keys() == others[file].keys()
        for name, tensor in content.items():
            assert torch.equal(tensor, others[file][name]) and tensor.dtype == others[file][name].dtype, (
                file,
                name,
            )


def interrupted(folder: Path, make: Any) -> tuple[Session, list[dict[str, float]]]:
    """A run that is stopped after every second update and goes on in new objects each time."""
    seen: list[dict[str, float]] = []
    while len(seen) < STEPS:
        made = make()
        with CheckpointWriter(folder, keep=1, spec_hash="x", say=pytest.fail, background=True) as keeper:
            start = restore(folder, state(made), spec_hash="x", say=pytest.fail).step
            assert start == len(seen)
            for report in fit(made, start):
                seen.append(report.metrics)
                if report.step % 2 == 0:
                    keeper.save(report.step, state(made))
                    break
    return made, seen


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("ema", [False, True], ids=["", "average"])
@pytest.mark.parametrize("lora", [False, True], ids=["", "lora with dropout"])
@pytest.mark.parametrize("fp16", [False, True], ids=["", "loss scale"])
def test_stopping_changes_no_bit(tmp_path, optimiser, ema, lora, fp16):
    def make() -> Session:
        return session(optimiser, ema=ema, lora=lora, fp16=fp16)

    straight = make()
    seen = [report.metrics for report in fit(straight)]
    again, metrics = interrupted(tmp_path, make)
    same(straight, again)
    assert metrics == seen
    tensors, plain = everything(straight)
    assert ("average" in tensors) == ema and ("scaler" in plain) == fp16
    assert {"weights", "optimiser"} <= tensors.keys() and "optimiser" in plain
    if lora:
        assert all("lora" in name for name in tensors["weights"]), "the frozen weights aren't kept"
    if fp16:
        assert plain["scaler"]["scale"] != 2.0**127 and plain["scaler"]["skipped_updates"] > 0


def test_an_objective_with_means_over_the_update_goes_through_checkpoints(tmp_path):
    def make() -> Session:
        return session("adamw", ema=True, lora=False, fp16=False, objective=DiffusionKTO(beta=50))

    straight = make()
    seen = [report.metrics for report in fit(straight)]
    again, metrics = interrupted(tmp_path, make)
    same(straight, again)
    assert metrics == seen


def test_what_would_not_be_kept_would_be_noticed(tmp_path):
    """The comparison above can fail: without the average, the scale or the moments the end is another."""
    straight = session("adamw", ema=True, lora=False, fp16=True)
    list(fit(straight))
    for lost in ("optimiser", "average", "scaler"):
        folder = tmp_path / lost
        first, second = (session("adamw", ema=True, lora=False, fp16=True) for _ in "12")
        with CheckpointWriter(folder, keep=1, spec_hash="x", say=pytest.fail) as keeper:
            for report in fit(first):
                if report.step == 4:
                    keeper.save(4, state(first))
                    break
        partly = replace(state(second), **{lost: None})
        start = restore(folder, partly, say=pytest.fail).step
        list(fit(second, start))
        with pytest.raises(AssertionError):
            same(straight, second)
