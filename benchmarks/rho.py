"""How alike a pair's gradients are at two timesteps, in the plane and on pictures: what `smpo measure rho` prints, with
machine and versions.

python benchmarks/rho.py            # two minutes; writes benchmarks/results/rho_{plane,shapes}.json
python benchmarks/rho.py --quick    # seconds, to see that it works: two pairs of the plane
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from output import add_arguments, target, write
from speed.measure import machine

HERE = Path(__file__).parent
WORLDS = {"plane": ("plane_smpo.yaml", 128), "shapes": ("quickstart.yaml", 96)}
"""Spec and pairs."""
LEVELS = 8
"""Timesteps of each pair."""


def main(words: list[str] | None = None) -> None:
    from smpo.app.checks.gradient_correlation import measure_rho, settings_for
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve
    from smpo.tracking.console import Console

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, device=True)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    for world, (spec, pairs) in ({"plane": ("plane_smpo.yaml", 2)} if options.quick else WORLDS).items():
        sets = [*settings_for(pairs), f"runtime.device={options.device}"]
        resolved = resolve(HERE.parent / "experiments" / spec, skeleton=ExperimentSpec, sets=sets)
        with Console(quiet=True) as console:
            found = measure_rho(resolved.spec, 2 if options.quick else LEVELS, console)
        told = {**asdict(found.resemblance), "choices": [asdict(choice) for choice in found.choices]}
        body = {"spec": spec, "seed": 0, "machine": machine(torch.device(options.device)), "found": told}
        write(target(options, f"rho_{world}.json"), body)


if __name__ == "__main__":
    main()
