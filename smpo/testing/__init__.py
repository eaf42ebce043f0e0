"""Contracts: what every component of a kind promises, as test classes to inherit from.

    from smpo.testing import SmoothingContract

    class TestMine(SmoothingContract):
        @pytest.fixture
        def component(self):
            return Mine(strength=0.5)

smpo's own components are held to the same classes (`tests/contracts`). Where a kind needs something to work on
(pictures, prompts), a fixture of that name may be overridden. Needs pytest and torch; nothing at run time imports it.
"""

from smpo.testing.component import ComponentContract as ComponentContract
from smpo.testing.data import DataContract as DataContract
from smpo.testing.data import PromptsContract as PromptsContract
from smpo.testing.data import RewardContract as RewardContract
from smpo.testing.inversion import InversionContract as InversionContract
from smpo.testing.model import ModelContract as ModelContract
from smpo.testing.search import PrunerContract as PrunerContract
from smpo.testing.search import SamplerContract as SamplerContract
from smpo.testing.training import ObjectiveContract as ObjectiveContract
from smpo.testing.training import OptimiserContract as OptimiserContract
from smpo.testing.training import SmoothingContract as SmoothingContract
