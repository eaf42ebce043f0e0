"""Components and the registry of their names."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from smpo.errors import MachineError
from smpo.registry.component import (
    REGISTRY,
    Component,
    Registry,
    collecting,
    is_kind,
    register,
    summary_of,
)
from smpo.registry.requirements import require, unmet
from tests.spec.kitchen.meal import Bread, Dish, Electric, Oven, kitchen


class Lamp(Component):
    """Gives light."""

    kind: ClassVar[str] = "lamp"


class Warm(Lamp):
    """Light as from a candle.

    More is not said.
    """

    use: Literal["warm"] = "warm"
    kelvin: int = Field(2700, gt=0)
    """Colour temperature."""


def test_a_component_is_its_own_configuration() -> None:
    warm = Warm(kelvin=3000)
    assert (warm.use, warm.kind, warm.version) == ("warm", "lamp", 1)
    with pytest.raises(ValidationError):
        Warm(kelvins=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        warm.kelvin = 4
    assert Warm.model_fields["kelvin"].description == "Colour temperature."
    assert summary_of(Warm) == "Light as from a candle."
    assert is_kind(Lamp)
    assert not any(map(is_kind, (Warm, Component, int, None, list[Lamp])))


def test_registering_twice_is_fine_and_clashing_is_not() -> None:
    registry = Registry()
    registry.add(Warm)
    registry.add(Warm)
    assert registry.of("lamp") == {"warm": Warm}

    class Other(Lamp):
        """Another."""

        use: Literal["warm"] = "warm"

    with pytest.raises(TypeError, match=r"already .*:Warm; .*Other needs another name"):
        registry.add(Other)


def test_a_module_that_is_loaded_again_replaces_its_components() -> None:
    """Notebooks run a cell twice."""
    registry = Registry()
    for _ in range(2):
        again = type(
            "Again",
            (Lamp,),
            {
                "__doc__": "Again.",
                "__annotations__": {"use": Literal["again"]},
                "use": "again",
                "__module__": "m",
            },
        )
        registry.add(again)
    assert registry.get("lamp", "again") is again


def test_decorator_fills_the_current_registry() -> None:
    with collecting(Registry()) as registry:
        assert register(Warm) is Warm
    assert registry.get("lamp", "warm") is Warm
    assert REGISTRY.get("lamp", "warm") is None
    assert registry.copy().of("lamp") == registry.of("lamp")
    assert (registry.kinds(), list(registry), registry.get("x", "y")) == (("lamp",), [Warm], None)


def _declare(**body: Any) -> type[Component]:
    return type("Odd", (body.pop("base", Lamp),), {"__module__": "m", "__doc__": "Odd.", **body})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"base": Component}, "no kind"),
        ({}, "needs a name"),
        ({"__annotations__": {"use": Literal["a", "b"]}, "use": "a"}, "needs a name"),
        ({"__annotations__": {"use": Literal["a"]}}, "needs a name"),
        ({"__annotations__": {"use": str}, "use": "a"}, "needs a name"),
        ({"__annotations__": {"use": Literal["Has Blanks"]}, "use": "Has Blanks"}, "is not a name"),
        ({"__annotations__": {"use": Literal["a"]}, "use": "a", "__doc__": None}, "docstring"),
        ({"__annotations__": {"use": Literal["a"], "within": list[Lamp]}, "use": "a"}, "is a slot"),
    ],
)
def test_declarations_that_can_not_be_components(body: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Registry().add(_declare(**body))


def test_abstract_methods_have_to_be_written() -> None:
    class Bulb(Lamp):
        kind: ClassVar[str] = "bulb"

        @abstractmethod
        def shine(self) -> None: ...

    class Broken(Bulb):
        """Does not shine."""

        use: Literal["broken"] = "broken"

    with pytest.raises(TypeError, match="does not say how to do: shine"):
        Registry().add(Broken)


def test_missing_packages_are_named() -> None:
    class Gas(Lamp):
        """Needs a pipe."""

        use: Literal["gas"] = "gas"
        requires: ClassVar[tuple[str, ...]] = ("json", "no_such_pipe.fitting")

    class Oil(Gas):
        """Needs a wick."""

        use: Literal["oil"] = "oil"  # type: ignore[assignment]
        extra: ClassVar[str | None] = "wicks"

    assert unmet({"a": Warm()}) == ()
    (warning,) = unmet({"a": Gas()})
    assert warning.level == "warning"
    assert warning.message == "lamp `gas` needs `no_such_pipe.fitting`, which is not installed"
    assert warning.help == "`pip install no_such_pipe`"
    require([Warm()])
    with pytest.raises(MachineError, match="lamp `oil` needs") as caught:
        require([Warm(), Oil()])
    assert caught.value.help == '`pip install "smpo[wicks]"`'


def test_the_kitchen_is_registered() -> None:
    registry = kitchen()
    assert registry.kinds() == ("dish", "fan", "judge", "oven", "table")
    assert registry.get("oven", "electric") is Electric
    assert issubclass(Bread, Dish)
    assert is_kind(Oven)
