"""Local code that takes a name which is taken."""

from typing import Literal

from smpo.registry.component import register
from tests.spec.kitchen.meal import Oven


@register
class Electric(Oven):
    """Not the one you know."""

    use: Literal["electric"] = "electric"
