"""Everything that smpo ships is sound: its cards, its experiments, and the schema beside them."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from smpo.experiment import ExperimentSpec
from smpo.registry.cards import Card, Cards, builtin_root
from smpo.registry.check import check_cards
from smpo.registry.component import REGISTRY, Component, summary_of
from smpo.registry.expand import Catalogue
from smpo.registry.plugins import own
from smpo.registry.resolve import resolve
from smpo.registry.schema import spec_schema
from smpo.spec.read import read
from smpo.spec.source import open_source
from smpo.spec.tree import plain

import smpo.components  # noqa: F401, isort: skip -- fills the common registry

HERE = Path(__file__).parents[2]
CATALOGUE = Catalogue(own(REGISTRY), Cards([builtin_root()]))
CARDS = CATALOGUE.cards.sound()
SPECS = sorted((HERE / "experiments").glob("*.yaml"))
SCHEMA = spec_schema(ExperimentSpec, CATALOGUE)


def test_cards_are_sound() -> None:
    assert [str(problem) for problem in check_cards(CATALOGUE, ExperimentSpec)] == []


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"{card.kind}-{card.name}")
def test_cards_say_what_they_are_and_where_from(card: Card) -> None:
    assert card.summary.endswith(".")
    assert card.source or not card.needs.network, "what is fetched comes from somewhere"


@pytest.mark.parametrize("component", list(own(REGISTRY)), ids=lambda part: f"{part.kind}-{part.__name__}")
def test_components_explain_themselves(component: type[Component]) -> None:
    assert len(summary_of(component)) > 10
    named = {name for name, info in component.model_fields.items() if not info.description}
    assert named <= {"use", "eps"}, "a setting needs a docstring; it is what editors and `registry show` say"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_specs_are_sound(spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(HERE)
    found = resolve(spec, skeleton=ExperimentSpec, registry=REGISTRY)
    again = tmp_path / "resolved.yaml"
    again.write_text(found.resolved_yaml(), encoding="utf-8")
    assert resolve(again, skeleton=ExperimentSpec, registry=REGISTRY).identity == found.identity
    for file in (spec, again):
        data = read(open_source(file))
        assert data is not None
        assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(plain(data))] == []


def test_the_schema_is_draft_7_and_fresh() -> None:
    Draft7Validator.check_schema(SCHEMA)
    committed = json.loads((HERE / "registry" / "schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(SCHEMA)), "run `nox -s schema`"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_editors_find_the_schema(spec: Path) -> None:
    first = spec.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../registry/schema.json"


def test_the_schema_documents_what_editors_show() -> None:
    steps = SCHEMA["definitions"]["TrainSpec"]["properties"]["steps"]
    assert steps["description"] == "Optimiser updates." and steps["exclusiveMinimum"] == 0
    models = {one["const"]: one["description"] for one in SCHEMA["properties"]["model"]["anyOf"] if "const" in one}
    assert models["sdxl"] == "Stable Diffusion XL base 1.0, 1024 px."
    units = SCHEMA["definitions"]["PickAPic"]["properties"]["max_broken"]
    assert (units["minimum"], units["maximum"]) == (0, 1) and "share" in units["description"]
