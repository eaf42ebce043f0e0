"""A member of a mix: a reward that a spec names inside another, and what is usual for its scores."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    WithJsonSchema,
)

from smpo.components.rewards.learned import Learned
from smpo.errors import SpecError
from smpo.kinds import Reward

__all__ = ["Member"]


def _member_reward(value: Any) -> Reward:
    """A card's or component's name, or a map with `use`, as the reward it stands for.

    A component has no slots, so what a slot does for a name is done here. Cards are those that every spec sees, rewards
    those of installed packages; local code of one spec is not known here.
    """
    from smpo.registry.cards import Cards, card_roots
    from smpo.registry.plugins import installed
    from smpo.spec.problems import SpecProblems
    from smpo.spec.tree import plain

    if isinstance(value, Reward):
        return value
    settings = {"use": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(settings.get("use"), str):
        raise SpecError("", "a member is the name of a reward, or a map with `use`")
    name, registry = settings["use"], installed()[0]
    cards = Cards(card_roots())
    try:
        card = cards.get("reward", name)
    except SpecProblems as error:
        raise SpecError("", f"card `{name}` is broken: {error}") from error
    if card is not None:
        settings = {**plain(card.settings), **settings, "use": card.use}
    component = registry.get("reward", settings["use"])
    if component is None or not issubclass(component, Reward):
        names = sorted({*cards.names("reward"), *registry.of("reward")})
        raise SpecError("", f"no reward is called `{name}`", help=f"there are {', '.join(names)}")
    try:
        return component.model_validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise SpecError("", f"`{name}`: {where + ': ' if where else ''}{first['msg']}") from error


_NAMED = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
    ]
}


class Member(BaseModel):
    """One reward of a mix, and what is usual for its scores."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    reward: Annotated[SerializeAsAny[Reward], BeforeValidator(_member_reward), WithJsonSchema(_NAMED)]
    """A card or component by name, or a map with `use` and settings."""
    weight: float = Field(1.0, gt=0)
    """How much it counts."""
    centre: float | None = None
    """The score of a usual picture; null takes 0 for `sum`, and the middle of the reward's band for `vote`."""
    scale: float = Field(1.0, gt=0)
    """For `sum`: differences of scores are divided by it."""
    knots: list[float] = Field(default_factory=list)
    """For `rank`: scores at equal steps of quantile over some population, lowest to highest, such as the minimum, the
    quartiles and the maximum. Empty takes the ends of the reward's band."""

    @property
    def band(self) -> tuple[float, float] | None:
        return self.reward.band if isinstance(self.reward, Learned) else None
