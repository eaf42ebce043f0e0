"""Checkpoints: whole or not at all, and the one before when the newest is torn."""

import pytest
import torch
from torch import nn

from smpo.engine.checkpoint import restore, save
from smpo.engine.kept import checkpoints


def state(value: float):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return layer, optimiser


def write(folder, step, value, keep=3):
    layer, optimiser = state(value)
    save(folder, step, dict(layer.named_parameters()), optimiser, None, spec_hash="abc", keep=keep)
    return layer, optimiser


def test_round_trip_is_exact(tmp_path):
    layer, optimiser = write(tmp_path, 7, 3.0)
    other, fresh = state(0.0)
    assert restore(tmp_path, dict(other.named_parameters()), fresh, None, say=pytest.fail) == 7
    assert torch.equal(layer.weight, other.weight)
    for a, b in zip(
        optimiser.state_dict()["state"].values(), fresh.state_dict()["state"].values(), strict=True
    ):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, step, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("harm", ["truncate", "flip", "lose", "no manifest"])
def test_a_harmed_checkpoint_is_passed_over_in_words(tmp_path, harm):
    write(tmp_path, 1, 1.0)
    write(tmp_path, 2, 2.0)
    file = tmp_path / "step-00000002" / "weights.safetensors"
    data = file.read_bytes()
    if harm == "truncate":
        file.write_bytes(data[:-5])
    elif harm == "flip":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "lose":
        file.unlink()
    else:
        (tmp_path / "step-00000002" / "manifest.json").unlink()
    layer, optimiser = state(0.0)
    said: list[str] = []
    assert restore(tmp_path, dict(layer.named_parameters()), optimiser, None, say=said.append) == 1
    assert harm == "no manifest" or "step-00000002 can't be used" in said[0]


def test_nothing_there_is_a_fresh_start(tmp_path):
    layer, optimiser = state(0.0)
    assert restore(tmp_path / "none", dict(layer.named_parameters()), optimiser, None, say=pytest.fail) == 0
