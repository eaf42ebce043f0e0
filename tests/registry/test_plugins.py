"""Third parties: a package by entry point, a file by `uses:`."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from smpo.registry import plugins
from smpo.registry.component import Registry
from smpo.registry.plugins import load_entry_points
from smpo.registry.resolve import catalogue
from smpo.registry.trust import trust_all
from smpo.spec.problems import SpecProblems
from tests.spec.kitchen.meal import PLAIN, Meal, cook

GRILL = (Path(__file__).parents[1] / "spec" / "kitchen" / "grill.py").read_text()


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "grill.py").write_text(GRILL)
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN.replace("electric", "{use: grill, bars: 5}") + "uses: [./grill.py]\n")
    trust_all(True)
    yield file
    trust_all(False)


def test_a_local_file_is_known_to_its_spec_only(spec: Path) -> None:
    found = cook(spec)
    assert found.leaves()["oven.bars"] == 5
    assert found.components()["oven"].use == "grill"
    assert isinstance(found.spec, Meal)
    other = spec.parent / "other.yaml"
    other.write_text(PLAIN.replace("electric", "grill"))
    with pytest.raises(SpecProblems, match="no oven is called `grill`"):
        cook(other)


def test_its_descriptions_are_read(spec: Path) -> None:
    oven = cook(spec).components()["oven"]
    assert type(oven).model_fields["bars"].description == "How many."


def test_its_bytes_are_part_of_the_identity(spec: Path) -> None:
    before = cook(spec)
    module = type(before.components()["oven"]).__module__
    assert module in sys.modules
    assert type(cook(spec).components()["oven"]) is type(before.components()["oven"])
    (spec.parent / "grill.py").write_text(GRILL + "# changed\n")
    after = cook(spec)
    assert after.identity.spec_hash != before.identity.spec_hash
    assert type(after.components()["oven"]).__module__ != module
    (spec.parent / "grill.py").write_text(GRILL)
    assert cook(spec).identity == before.identity


def test_its_folder_is_not(spec: Path) -> None:
    elsewhere = spec.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "grill.py").write_text(GRILL)
    (elsewhere / "a.yaml").write_text(spec.read_text())
    assert cook(elsewhere / "a.yaml").identity == cook(spec).identity


def test_a_file_that_changes_within_a_second_is_not_taken_from_a_byte_code_cache(spec: Path) -> None:
    for bars in "123456":
        (spec.parent / "grill.py").write_text(GRILL.replace("= 4", f"= {bars}"))
        assert str(cook(spec, "oven=grill").leaves()["oven.bars"]) == bars
    assert not (spec.parent / "__pycache__").exists()


def test_resolved_yaml_brings_its_code_along(spec: Path) -> None:
    found = cook(spec)
    runs = spec.parent / "runs" / "one"
    runs.mkdir(parents=True)
    (runs / "resolved.yaml").write_text(found.resolved_yaml())
    assert cook(runs / "resolved.yaml").identity == found.identity
    (local,) = found.local_files
    (runs / local.path.name).write_bytes(local.path.read_bytes())
    (runs / "resolved.yaml").write_text(found.resolved_yaml(uses="beside"))
    local.path.unlink()
    assert cook(runs / "resolved.yaml").identity == found.identity


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "SystemExit on line 1: 3"),
        ("def f(:", "SyntaxError on line 1"),
        ("import no_such_module", "ModuleNotFoundError on line 1"),
        ("x = 1\x00", "can't be imported"),
        ("# -*- coding: nonsense -*-", "can't be imported"),
        (GRILL.replace('"""Heats from above."""', ""), "needs a docstring"),
    ],
)
def test_code_that_fails_is_a_problem_of_the_spec(spec: Path, code: str, said: str) -> None:
    (spec.parent / "grill.py").write_text(code)
    with pytest.raises(SpecProblems, match=said) as caught:
        cook(spec)
    assert caught.value.problems[0].path == "uses"
    assert not [name for name in sys.modules if name.startswith("smpo_local_grill") and "nonsense" in name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"acme_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(GRILL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_failures", {})
    monkeypatch.setattr(plugins, "_loaded", set())
    monkeypatch.setattr(plugins, "REGISTRY", Registry())
    return name


def test_an_entry_point_registers_and_a_broken_one_only_warns(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint(name, value, plugins.GROUP) for name, value in [("acme", package), ("broken", "no_such_package")]
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    for _ in range(2):
        have, warnings = catalogue()
        assert "grill" in have.registry.of("oven")
        assert [warning.message for warning in warnings] == [
            "the package behind entry point `broken` can't be used: "
            "ModuleNotFoundError: No module named 'no_such_package'"
        ]
    assert "grill" in have.names("oven")


def test_an_entry_point_can_fill_another_registry(package: str) -> None:
    registry = Registry()
    load_entry_points([EntryPoint("acme", package, plugins.GROUP)], registry)
    assert "grill" in registry.of("oven")


def test_our_own_components_may_not_fail_in_silence(package: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        load_entry_points([EntryPoint("smpo", "no_such_package", plugins.GROUP)])
