"""States of a training of one small layer, and checkpoints of them."""

import torch
from torch import nn

from smpo.engine.checkpoints.checkpoint import write as write_checkpoint
from smpo.engine.checkpoints.files import drop_old
from smpo.engine.checkpoints.train_state import TrainState, snapshot
from smpo.engine.ema import ExponentialMovingAverage

FILES = (
    "weights.safetensors", "average.safetensors", "optimiser.safetensors", "optimiser.json", "scaler.json",
    "manifest.json",
)  # fmt: skip


def live(value: float, optimiser=torch.optim.AdamW) -> TrainState:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    rule = optimiser(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    rule.step()
    parameters = dict(layer.named_parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8 * value + 2)
    return TrainState(parameters, rule, ExponentialMovingAverage(parameters, 0.9), scaler)


def save(folder, step, state, *, spec_hash, keep, facts=None):
    """Write the state after `step` updates, and drop all but the newest `keep`."""
    path = write_checkpoint(folder, step, snapshot(state), spec_hash=spec_hash, facts=facts)
    drop_old(folder, keep, step)
    return path


def write(folder, step, keep=3) -> TrainState:
    state = live(float(step))
    save(folder, step, state, spec_hash="abc", keep=keep)
    return state


def weight(state: TrainState) -> torch.Tensor:
    return state.parameters["weight"]
