"""The command line as a person types it, in this process: standard output, standard error, exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

REPOSITORY_SPECS = "experiments"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def smpo(capfd: pytest.CaptureFixture[str], *words: object) -> Said:
    """`smpo WORDS...` through the console script's own entry."""
    from smpo.cli.main import main

    capfd.readouterr()
    before = sys.argv
    sys.argv = ["smpo", *map(str, words)]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    return Said(code, out, err)


SMALL_PLANE = """\
name: small
model: plane
data: {use: plane-pairs, limit: 200}
reward: plane-radius
objective: {use: smpo, beta: 500}
smoothing: likelihood
inversion: {use: renoise, steps: 4, by: reference}
train: {steps: 4, batch: 16, lr: 1e-4}
evaluate:
  prompts: {use: plane-prompts, repeats: 4}
  rewards: [plane-radius, plane-on-axis]
  guidance: 3
  steps: 6
runtime: {threads: 1, tracking: none}
"""
