"""Local code that a spec may use."""

from typing import Literal

from smpo.registry.component import register
from tests.spec.kitchen.meal import Oven


@register
class Grill(Oven):
    """Heats from above."""

    use: Literal["grill"] = "grill"
    bars: int = 4
    """How many."""
