"""Kinds, components and the skeleton of the kitchen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from smpo.errors import SpecError, SpecErrors
from smpo.registry.component import Component, Registry, slot
from smpo.registry.resolve import Resolved, resolve
from smpo.spec.identity import Neutral

ROOT = Path(__file__).parent / "registry"


class Oven(Component):
    """Where it gets hot."""

    kind: ClassVar[str] = "oven"


class Dish(Component):
    """What is cooked."""

    kind: ClassVar[str] = "dish"


class Judge(Component):
    """Who tastes it."""

    kind: ClassVar[str] = "judge"


class Fan(Component):
    """What moves the air."""

    kind: ClassVar[str] = "fan"


class Table(Component):
    """Where it is eaten. There is one component of this kind only, which makes a union of one."""

    kind: ClassVar[str] = "table"


class Electric(Oven):
    """Heats by wire."""

    use: Literal["electric"] = "electric"
    watts: int = Field(2000, gt=0, le=10_000)
    """Power drawn at full heat."""
    shelves: int = 3


class Wood(Oven):
    """Heats by fire."""

    use: Literal["wood"] = "wood"
    logs: int = Field(gt=0, description="How many logs are laid on. More burn longer.")
    smoke: float = Field(0.0, ge=0, le=1)


class Bread(Dish):
    """Flour, water, salt and time."""

    use: Literal["bread"] = "bread"
    version: ClassVar[int] = 2
    flour: float = Field(500.0, gt=0)
    water: float | Literal["enough"] = 350.0
    grains: list[str] = Field(default_factory=list, max_length=3)
    shares: dict[str, float] = Field(default_factory=dict)
    crust: Literal["thin", "thick", "none"] = "thin"
    rest: Annotated[int, Neutral(0)] = 0
    steps: int = 2  # called like a component of its kind

    @model_validator(mode="after")
    def _wet_enough(self) -> Bread:
        if isinstance(self.water, float) and self.water > self.flour:
            raise SpecError("water", "there is more water than flour", related=["flour"], help="use less water")
        return self


class Steps(Dish):
    """A recipe in steps: its name is also the name of a setting elsewhere."""

    use: Literal["steps"] = "steps"
    count: int = 1


class Critic(Judge):
    """Somebody who writes about it."""

    use: Literal["critic"] = "critic"
    harsh: float = 0.5


class Guest(Judge):
    """Somebody who is hungry."""

    use: Literal["guest"] = "guest"
    appetite: int = 1

    @field_validator("appetite")
    @classmethod
    def _human(cls, appetite: int) -> int:
        if appetite > 9:
            raise ValueError("nobody eats that much")
        return appetite


class PlainFan(Fan):
    """Turns."""

    use: Literal["plain"] = "plain"
    speed: float = 1.0


class Turbo(Fan):
    """Turns fast."""

    use: Literal["turbo"] = "turbo"
    speed: float = 9.0


class Round(Table):
    """Everybody sees everybody."""

    use: Literal["round"] = "round"
    seats: int = 6


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Bake(_Section):
    """How long, how hot."""

    minutes: int = Field(gt=0)
    """Time in the oven."""
    heat: float = Field(gt=0)
    """Degrees. Celsius, of course."""
    preheat: bool = True
    seed: int = 0
    fan: Fan = slot("plain", description="What moves the air.")

    @model_validator(mode="after")
    def _sound(self) -> Bake:
        errors = []
        if self.minutes > 600:
            errors.append(SpecError("minutes", "nothing bakes for ten hours", related=["heat"]))
        if self.heat > 500:
            errors.append(SpecError("heat", "the oven would melt", related=["preheat"]))
        if errors:
            raise SpecErrors(errors)
        return self


class Serve(_Section):
    """Who eats, and where."""

    judges: list[Judge] = Field(min_length=1)
    table: Table
    stars: int = Field(3, multiple_of=1, ge=1, le=5)


class Runtime(_Section):
    """Which cook."""

    cooks: int = Field(1, ge=1)
    radio: str | None = None


class Meal(_Section):
    """A meal, from oven to table."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    notes: str = ""
    tags: dict[str, str] = Field(default_factory=dict)
    oven: Oven
    dish: Dish
    helper: Judge | None = None
    bake: Bake
    serve: Serve | None = None
    runtime: Runtime = Field(default_factory=Runtime)

    @model_validator(mode="after")
    def _fits(self) -> Meal:
        if isinstance(self.oven, Electric) and self.bake.heat > self.oven.watts / 5:
            raise SpecError(
                "bake.heat",
                f"{self.oven.watts} W do not reach {self.bake.heat:g} degrees",
                related=["oven.watts"],
                help="`-s oven.watts=5000`",
            )
        return self


def kitchen() -> Registry:
    """A registry of all of the above."""
    registry = Registry()
    for component in (Electric, Wood, Bread, Steps, Critic, Guest, PlainFan, Turbo, Round):
        registry.add(component)
    return registry


REGISTRY = kitchen()


def cook(path: Path, *sets: str, roots: tuple[Path, ...] = (ROOT,), **more: Any) -> Resolved[Meal]:
    """Resolve a spec of the kitchen."""
    return resolve(path, skeleton=Meal, sets=sets, registry=REGISTRY, roots=roots, **more)


PLAIN = """\
name: supper
oven: electric
dish: bread
bake: {minutes: 40, heat: 220}
"""
