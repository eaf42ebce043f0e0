"""What authors of components and notebooks import. Everything here is public: it changes with notice or not at all.

    from smpo.api import Reward, register            # in a plug-in or a local file
    from smpo.api import load, plan, run             # in a notebook

Importing it loads no torch, so that a file named in `uses:` stays quick to plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field as Field

from smpo.errors import MachineError as MachineError
from smpo.errors import RunError as RunError
from smpo.errors import SmpoError as SmpoError
from smpo.errors import SpecError as SpecError
from smpo.experiment import ExperimentSpec as ExperimentSpec
from smpo.kinds import Conditioning as Conditioning
from smpo.kinds import Denoiser as Denoiser
from smpo.kinds import Draws as Draws
from smpo.kinds import Inversion as Inversion
from smpo.kinds import Model as Model
from smpo.kinds import ModelFacts as ModelFacts
from smpo.kinds import Objective as Objective
from smpo.kinds import ObjectiveOut as ObjectiveOut
from smpo.kinds import Optimiser as Optimiser
from smpo.kinds import Pair as Pair
from smpo.kinds import PairData as PairData
from smpo.kinds import PairTable as PairTable
from smpo.kinds import Placement as Placement
from smpo.kinds import Predicted as Predicted
from smpo.kinds import Predictors as Predictors
from smpo.kinds import Prompt as Prompt
from smpo.kinds import PromptSet as PromptSet
from smpo.kinds import Reward as Reward
from smpo.kinds import Runtime as Runtime
from smpo.kinds import Sampling as Sampling
from smpo.kinds import Scorer as Scorer
from smpo.kinds import ScoreStats as ScoreStats
from smpo.kinds import Smoothing as Smoothing
from smpo.registry.component import register as register
from smpo.registry.resolve import Resolved as Resolved

if TYPE_CHECKING:
    from smpo.app.plan.plan import Plan
    from smpo.app.run.run import Result


def load(source: str | Path, sets: Sequence[str] = ()) -> Resolved[ExperimentSpec]:
    """A spec, by file or by the name of a shipped one, with every value resolved. Raises `SmpoError` in words.

    `sets` are lines as after `--set`: `["train.steps=5"]`.
    """
    from smpo.cli.output import resolve_spec

    return resolve_spec(str(source), sets)


def plan(resolved: Resolved[ExperimentSpec]) -> Plan:
    """What a spec amounts to: costs, what is missing here, what to reconsider. Runs nothing."""
    from smpo.app.plan.plan import make_plan

    return make_plan(resolved)


def run(resolved: Resolved[ExperimentSpec], *, again: bool = False, resume: bool = False, quiet: bool = True) -> Result:
    """Train, evaluate and track, in this process, as `smpo run` does. Raises `MachineError` when it can't run here."""
    from smpo.app.run.run import run as run_here
    from smpo.tracking.console import Console

    found = plan(resolved)
    if found.missing:
        first = found.missing[0]
        raise MachineError(f"{first.where}: {first.message}", help=first.help)
    with Console(quiet=quiet) as console:
        return run_here(resolved, found, console, again=again, resume=resume)
