"""What holds for components of every kind: they are named, documented, frozen data, and cheap to declare."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from typing import Any, ClassVar

import pytest

from smpo.registry.component import Component, Registry, summary_of

__all__ = ["CheckedContract", "ComponentContract"]


class ComponentContract:
    """Base of all contracts. Subclasses provide the fixture `component`."""

    declared_in: ClassVar[str | None] = None
    """The module whose import brings the component; its own, unless you say otherwise."""

    @pytest.fixture
    def component(self) -> Any:
        """The component under test, with settings of your choice."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `component` that returns one")

    def test_it_can_be_registered(self, component: Component) -> None:
        """A kind, a name, a docstring, nothing abstract."""
        registry = Registry()
        registry.add(type(component))
        assert registry.get(component.kind, component.use) is type(component)

    def test_it_explains_itself(self, component: Component) -> None:
        """`smpo registry show`, editors and the docs say what stands here."""
        assert len(summary_of(type(component))) > 10, "the docstring's first line is shown in lists"
        fields = type(component).model_fields
        silent = [name for name, info in fields.items() if name != "use" and not info.description]
        assert not silent, f"a setting needs a docstring: {', '.join(silent)}"
        assert isinstance(component.version, int) and component.version >= 1

    def test_its_settings_are_frozen_data(self, component: Component) -> None:
        """What is written down as JSON is what comes back, and nothing changes it on the way."""
        again = type(component).model_validate_json(component.model_dump_json(), strict=True)
        assert again == component
        with pytest.raises(ValueError, match="frozen"):
            component.__setattr__("use", "another")
        with pytest.raises(ValueError, match="no_such_setting"):
            type(component).model_validate({**component.model_dump(), "no_such_setting": 1})

    def test_its_schema_can_be_written(self, component: Component) -> None:
        """Editors complete and check it."""
        assert type(component).model_json_schema()["properties"]["use"]

    def test_declaring_it_loads_no_torch(self, component: Component) -> None:
        """Heavy imports belong inside methods, so that `smpo plan` answers at once."""
        module = self.declared_in or type(component).__module__
        if module in sys.modules and getattr(sys.modules[module], "__spec__", None) is None:
            pytest.skip("a local file; `smpo plan` on a spec that uses it shows how quick it is")
        assert not _heavy_after(module, tuple(sys.path)), f"importing {module} loads it"


class CheckedContract(ComponentContract):
    """Of kinds whose data or weights may be missing."""

    def test_its_check_is_a_sentence_or_nothing(self, component: Any) -> None:
        reason = component.check()
        assert reason is None or (isinstance(reason, str) and reason)


@lru_cache
def _heavy_after(module: str, path: tuple[str, ...]) -> str:
    """Heavy libraries that importing a module loads, in a fresh interpreter."""
    code = (
        f"import sys; sys.path[:] = {list(path)!r}; import importlib; importlib.import_module({module!r}); "
        "print(*(m for m in ('torch', 'transformers', 'diffusers', 'mlflow') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
