"""Gradients that overflow on one of two processes: both repeat the update, at the same scale, to the same weights."""

import json

import pytest
import torch

from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO
from smpo.engine.loop import fit
from tests.devices.launching import TORCHRUN, ran
from tests.engine.toys import toy_session

CASES = [("ddp", 20.0), ("fsdp", 20.0), ("ddp", 0.0), ("fsdp", 0.0)]
"""How the policy is spread, and the gradient beyond which the one process overflows."""
WORDS = (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "tests.devices.overflowing")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """`(case -> what each process has seen)`."""
    folder = tmp_path_factory.mktemp("overflow")
    said = ran(*WORDS, json.dumps(CASES), folder, folder=folder)
    assert said.returncode == 0, said.stderr
    here, there = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return {case: both for case, *both in zip(CASES, here, there, strict=True)}


@pytest.fixture(scope="module")
def alone():
    """One process whose gradients never overflow."""
    session = toy_session(SmPO(beta=50), ReNoise(steps=3, by="reference"), steps=4)
    losses = [report.metrics["loss"] for report in fit(session)]
    weights = torch.cat([p.detach().flatten() for p in session.denoiser.policy.parameters()])
    return losses, weights


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_processes_repeat_an_update_together(seen, alone, how):
    one, two = seen[how, 20.0]
    assert one == two, "the same metrics, scale, counts and weights, to the last bit"
    assert not one["error"] and len(one["seen"]) == 4
    skipped = [update["skipped"] for update in one["seen"]]
    assert skipped[0] > 0 and sum(skipped[1:]) > 0, "at the first scale, and where it has grown"
    assert one["counts"] == {"applied_updates": 4, "skipped_updates": sum(skipped)}
    losses, weights = alone
    # Float32 sums in another order; AdamW divides each gradient by its own size, so steps differ by as little.
    assert [update["loss"] for update in one["seen"]] == pytest.approx(losses, rel=1e-5)
    assert torch.allclose(torch.tensor(one["weights"]), weights, rtol=0, atol=2e-5 * float(weights.abs().max()))


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_processes_give_up_together(seen, how):
    for found in seen[how, 0.0]:
        assert "at every loss scale (65536 down to 2)" in found["error"] and not found["seen"]
        assert found["scale"] == 65536 and found["counts"]["skipped_updates"] == 0
