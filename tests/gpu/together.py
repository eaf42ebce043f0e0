"""One of two processes that train on one device; writes what it has seen. To be started by torchrun.

gloo's group is opened before accelerate looks for one, which would open NCCL's, and that refuses two processes of one
card. Both take card 0.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed


def main(device: str, spec: Path, folder: Path, sets: list[str]) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    os.environ["LOCAL_RANK"] = "0"  # of the card, as accelerate reads it
    import smpo.components  # noqa: F401 -- fills the common registry
    from smpo.app.build.build import build_run
    from smpo.app.run.ranks import shutdown_process_group
    from smpo.engine.loop import fit
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    resolved = resolve(spec, skeleton=ExperimentSpec, sets=sets).spec
    live = build_run(resolved, report=None, progress=lambda *_: None, say=print)
    assert live.session.accelerator.num_processes == 2
    assert live.session.denoiser.device == torch.device(device)
    reports = list(fit(live.session))
    facts = {
        "losses": [report.metrics["loss"] for report in reports],
        "scale": live.session.scaler.get_scale(),
        "counts": live.session.overflows.state_dict(),
    }
    weights = {name: p.detach().cpu().contiguous() for name, p in live.parameters.items()}
    save_file({name.removeprefix("module."): one for name, one in weights.items()}, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(facts))
    shutdown_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
