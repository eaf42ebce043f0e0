"""Updates of two processes of which one overflows; writes what each has seen. To be started by torchrun.

`ddp`: the first process' gradients become infinite before they are averaged. `fsdp`: after they were dealt out, in the
share of the second process alone.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from smpo.app.run.ranks import shutdown_process_group
from smpo.components.inversions import ReNoise
from smpo.components.objectives import SmPO
from smpo.engine.loop import fit
from smpo.engine.monitoring.alerts import NonFiniteLoss
from smpo.engine.sharding import full_tensor, gather, local_shard, shard
from tests.engine.toys import toy_batches, toy_session

BATCH, STEPS = 8, 4


def trained(how: str, limit: float, accelerator: Accelerator) -> dict[str, Any]:
    """What this process has seen of a training of four updates."""
    rank, world = accelerator.process_index, accelerator.num_processes
    session = toy_session(SmPO(beta=50), ReNoise(steps=3, by="reference"), steps=STEPS, batch=BATCH)
    batches, policy = toy_batches(BATCH, BATCH // world), session.denoiser.policy
    session.batches = lambda step: [list(batches(step))[rank]]
    session.accelerator = accelerator
    session.scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    if how == "fsdp":
        shard(policy, "cpu", world)
        session.optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-2)
        session.optimiser.register_step_post_hook(lambda *_: gather(policy))
        gather(policy)
    else:
        session.denoiser.policy = accelerator.prepare_model(policy)
    overflow(session, how, limit, rank)
    seen, error = [], ""
    try:
        for report in fit(session):
            seen.append({**report.metrics, "skipped": report.skipped})
    except NonFiniteLoss as caught:
        error = caught.message
        session.discard_gradients()
    weights = torch.cat([full_tensor(p.detach()).flatten() for p in session.parameters])
    return {
        "seen": seen,
        "error": error,
        "weights": weights.tolist(),
        "scale": session.scaler.get_scale(),
        "counts": session.overflows.state_dict(),
    }


def overflow(session, how: str, limit: float, rank: int) -> None:
    def endless(grad: torch.Tensor) -> torch.Tensor:
        return torch.where(grad.abs() > limit, math.inf, grad)

    if how == "ddp":
        if rank == 0:
            for parameter in session.parameters:
                parameter.register_hook(endless)
        return
    unscale = session.scaler.unscale_

    def late(optimiser) -> None:
        if rank == 1:
            for parameter in session.parameters:
                local_shard(parameter.grad).copy_(endless(local_shard(parameter.grad)))
        unscale(optimiser)

    session.scaler.unscale_ = late


if __name__ == "__main__":
    together = Accelerator(cpu=True)
    found = [trained(how, limit, together) for how, limit in json.loads(sys.argv[1])]
    Path(sys.argv[2], f"{together.process_index}.json").write_text(json.dumps(found))
    shutdown_process_group()
