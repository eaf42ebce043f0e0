"""The façade: what a resolved spec knows about itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from smpo.registry.component import Registry
from smpo.registry.slots import bind, find_slots
from tests.spec.kitchen.meal import PLAIN, REGISTRY, Bake, Meal, Oven, Serve, Turbo, cook

FULL = PLAIN + "serve: {judges: [aunt, {use: guest, appetite: 3}], table: round}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(FULL)
    return path


def test_the_skeleton_stays_what_type_checkers_see(file: Path) -> None:
    spec = cook(file).spec
    assert isinstance(spec, Meal)
    assert isinstance(spec.bake, Bake)
    assert isinstance(spec.serve, Serve)
    assert isinstance(spec.oven, Oven)
    assert [judge.use for judge in spec.serve.judges] == ["critic", "guest"]
    assert Meal.model_fields["oven"].annotation is Oven, "binding must not touch the skeleton"


def test_slots_are_found_wherever_they_are() -> None:
    found = {slot.name: (slot.kind.kind, slot.many, slot.optional, slot.default) for slot in find_slots(Meal)}
    assert found == {
        "oven": ("oven", False, False, None),
        "dish": ("dish", False, False, None),
        "helper": ("judge", False, True, None),
        "bake.fan": ("fan", False, False, "plain"),
        "serve.judges": ("judge", True, False, None),
        "serve.table": ("table", False, False, None),
    }


def test_binding_is_done_once_for_the_same_components() -> None:
    assert bind(Meal, REGISTRY) is bind(Meal, REGISTRY.copy())
    assert bind(Meal, REGISTRY) is not bind(Meal, Registry())


def test_leaves_and_components(file: Path) -> None:
    found = cook(file)
    leaves = found.leaves()
    assert leaves["serve.judges.1.appetite"] == 3
    assert leaves["tags"] == {}
    assert set(leaves) == set(found.origins)
    assert list(found.components()) == [
        "oven",
        "dish",
        "bake.fan",
        "serve.judges.0",
        "serve.judges.1",
        "serve.table",
    ]


def test_default_components(file: Path) -> None:
    found = cook(file)
    assert found.leaves()["bake.fan.use"] == "plain"
    assert found.origins["bake.fan.use"] == "default"
    assert cook(file, "bake.fan.speed=2").leaves()["bake.fan.speed"] == 2.0
    assert isinstance(cook(file, "bake.fan=turbo").spec.bake.fan, Turbo)
    assert cook(file, "bake.fan=turbo", "bake.fan.speed=2").leaves()["bake.fan.use"] == "turbo"


def test_resolved_yaml_says_where_everything_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    text = cook(Path("a.yaml"), "bake.heat=210").resolved_yaml()
    assert "  heat: 210.0" in text
    assert "# --set #1\n" in text
    assert "# a.yaml:4\n" in text
    assert text.startswith("# Resolved by smpo")


def test_the_bundle_holds_what_was_typed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    Path("b.yaml").write_text("extends: a.yaml\n# mine\nbake: {minutes: 3}")
    bundle = cook(Path("b.yaml"), "bake.heat=210").bundle()
    assert bundle.startswith("# b.yaml\nextends: a.yaml\n# mine\nbake: {minutes: 3}\n\n# on the command line:\n")
    assert "#   --set #1  bake.heat=210\n" in bundle
    assert "# extends a.yaml:\n#   name: supper\n" in bundle


def test_sources_are_everything_that_was_read(file: Path) -> None:
    child = file.parent / "b.yaml"
    child.write_text("extends: a.yaml\n")
    names = [source.name.rsplit("/", 1)[-1] for source in cook(child, "bake.heat=210").sources]
    assert names == ["aunt.yaml", "a.yaml", "b.yaml", "--set #1"]


def test_errors_are_instant_to_import_and_nothing_here_loads_torch() -> None:
    program = (
        "import sys; import smpo.errors;"
        "assert 'pydantic' not in sys.modules; assert 'ruamel.yaml' not in sys.modules;"
        "import smpo.registry.resolve, smpo.registry.schema, smpo.diagnostics.render;"
        "assert 'ruamel.yaml' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
