"""The schema that editors read: plain draft 7, and every sound spec passes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from smpo.registry.cards import Cards
from smpo.registry.expand import Catalogue
from smpo.registry.schema import spec_schema
from smpo.spec.read import read
from smpo.spec.source import open_source
from smpo.spec.tree import plain
from tests.spec.kitchen.meal import PLAIN, REGISTRY, ROOT, Meal

SCHEMA = spec_schema(Meal, Catalogue(REGISTRY, Cards([ROOT])))
VALIDATOR = Draft7Validator(SCHEMA)


def data(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    root = read(open_source(file))
    assert root is not None
    return plain(root)


def test_it_is_draft_7() -> None:
    Draft7Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA)
    for newer in ("$defs", "prefixItems", "discriminator", "unevaluated", "x-default-use"):
        assert newer not in text


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "extends: a.yaml\n",
        "extends: a.yaml\noven: {watts: 3}\nbake: {heat: 3}\n",
        "oven: tiny\ndish: {use: rye, crust: thin}\nhelper: null\n",
        "serve: {judges: [aunt, guest, {use: critic, harsh: 1}], table: {seats: 3}}\n",
        "bake: {fan: turbo}\n",
        "bake: {fan: {speed: 3}}\n",
        "uses: [./a.py]\nsweep: {trials: 3, search: {a.b: {log: [1, 2]}}}\n",
        "dish: {water: enough}\nruntime: {cooks: 3}\ntags: {a: b}\n",
    ],
)
def test_sound_files_pass(tmp_path: Path, text: str) -> None:
    assert list(VALIDATOR.iter_errors(data(tmp_path, text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "ovn: tiny\n",
        "oven: teeny\n",
        "oven: {wats: 3}\n",
        "oven: {use: wood, watts: 3}\n",
        "oven: {use: rye}\n",
        "bake: {minutes: many}\n",
        "bake: {fan: slow}\n",
        "serve: {judges: aunt}\n",
        "serve: {judges: [uncle]}\n",
        "extends: [a.yaml]\n",
        "uses: [a.yaml]\n",
    ],
)
def test_mistakes_do_not(tmp_path: Path, text: str) -> None:
    assert list(VALIDATOR.iter_errors(data(tmp_path, text)))


def test_names_bring_their_summaries() -> None:
    choices = {one["const"]: one["description"] for one in SCHEMA["properties"]["oven"]["anyOf"] if "const" in one}
    assert choices == {
        "electric": "Heats by wire.",
        "stone": "Keeps its heat for a day.",
        "tiny": "Fits one loaf.",
        "wood": "Heats by fire.",
    }
    assert SCHEMA["properties"]["oven"]["description"] == "Where it gets hot."
    assert SCHEMA["definitions"]["Electric"]["properties"]["watts"]["description"] == "Power drawn at full heat."
    assert SCHEMA["definitions"]["Electric"]["properties"]["use"]["enum"] == ["electric", "tiny"]


def test_nothing_is_required_and_the_order_is_fixed() -> None:
    assert "required" not in json.dumps(SCHEMA)
    again = spec_schema(Meal, Catalogue(REGISTRY.copy(), Cards([ROOT])))
    assert json.dumps(again) == json.dumps(SCHEMA)


def test_the_golden_files_that_are_only_wrong_in_meaning_pass_too() -> None:
    """An editor must not complain about a layer that is fine by itself."""
    folder = Path(__file__).parents[1] / "spec" / "errors"
    for name in ("_base", "set_unknown", "rule_across", "slot_missing", "missing_settings"):
        root = read(open_source(folder / f"{name}.yaml"))
        assert root is not None
        assert list(VALIDATOR.iter_errors(plain(root))) == [], name
