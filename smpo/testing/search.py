"""What samplers and pruners of sweeps promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from smpo.kinds import Pruner, Sampler
from smpo.testing.component import ComponentContract

__all__ = ["PrunerContract", "SamplerContract"]

SPACE: Mapping[str, Sequence[Any]] = {"beta": [100.0, 500.0, 1000.0], "objective": ["dpo", "smpo"]}
"""Small enough for samplers that walk a grid."""


class SamplerContract(ComponentContract):
    """An Optuna sampler that stays inside the space, and proposes the same again from the same seed and history."""

    @staticmethod
    def proposals(component: Sampler, seed: int, count: int = 5) -> list[dict[str, Any]]:
        """What a study of `count` trials tries, with a sampler built anew before each, as sweeps do."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study, found = optuna.create_study(direction="maximize"), []
        space = {name: optuna.distributions.CategoricalDistribution(list(SPACE[name])) for name in SPACE}
        for number in range(count):
            study.sampler = component.build(seed + number, SPACE)
            trial = study.ask(space)
            study.tell(trial, float(trial.params["beta"]))
            found.append(dict(trial.params))
        return found

    def test_it_builds_a_sampler_of_optuna(self, component: Sampler) -> None:
        from optuna.samplers import BaseSampler

        assert isinstance(component.build(0, SPACE), BaseSampler)
        assert component.check(SPACE) is None, "a small grid is a space for everybody"

    def test_it_stays_inside_the_space(self, component: Sampler) -> None:
        for params in self.proposals(component, seed=3):
            assert all(params[name] in SPACE[name] for name in SPACE)

    def test_the_same_seed_and_history_give_the_same_proposals(self, component: Sampler) -> None:
        assert self.proposals(component, seed=7) == self.proposals(component, seed=7)


class PrunerContract(ComponentContract):
    """An Optuna pruner that never gives up on the first trial, nor on one that leads from start to end."""

    @staticmethod
    def verdicts(component: Pruner, others: int, value: float) -> list[bool]:
        """Whether a trial that reports `value` at each of ten steps is given up, after `others` that reported 0."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", pruner=component.build())
        for _ in range(others):
            trial = study.ask()
            for step in range(1, 11):
                trial.report(0.0, step)
            study.tell(trial, 0.0)
        trial, said = study.ask(), []
        for step in range(1, 11):
            trial.report(value, step)
            said.append(bool(trial.should_prune()))
        return said

    def test_it_builds_a_pruner_of_optuna(self, component: Pruner) -> None:
        from optuna.pruners import BasePruner

        assert isinstance(component.build(), BasePruner)

    @pytest.mark.filterwarnings("ignore")  # scipy and Optuna remark on equal reports
    def test_the_first_trial_goes_on(self, component: Pruner) -> None:
        assert not any(self.verdicts(component, others=0, value=-1.0))

    @pytest.mark.filterwarnings("ignore")
    def test_a_leader_goes_on(self, component: Pruner) -> None:
        assert not any(self.verdicts(component, others=8, value=1.0))
