"""Rewards whose packages can't live beside smpo's."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from smpo.components.rewards.learned import Learned
from smpo.errors import MachineError
from smpo.kinds import Runtime, Scorer
from smpo.registry.component import register

__all__ = ["Process"]


@register
class Process(Learned):
    """A reward in a process of its own, for packages that can't live beside smpo's (HPSv3, VLM judges, your own).

    A spec only names it. What the name stands for on this machine is in `~/.config/smpo/scorers.toml`, or the file that
    SMPO_SCORERS names: neither specs nor cards can say what is run.
    """

    use: Literal["process"] = "process"
    version: ClassVar[int] = 1

    scorer: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The name under which the machine knows the scorer."""
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Given to the worker when it loads: weights, revision, whatever changes a score."""

    def load(self, runtime: Runtime) -> Scorer:
        from smpo.rewards.process import load_process_scorer

        return self._watched(load_process_scorer(self.scorer, self.settings, runtime))

    def check(self) -> str | None:
        from smpo.rewards.scorer_programs import find_worker

        try:
            find_worker(self.scorer)
        except MachineError as error:
            return f"{error.message}: {error.help}" if error.help else error.message
        return None
