"""Layers: one parent, one rule."""

from pathlib import Path

import pytest

from smpo.spec.layers import merge, merge_sweeps, read_chain, read_sets
from smpo.spec.problems import SpecProblems
from smpo.spec.read import read
from smpo.spec.source import Source
from smpo.spec.tree import Node, plain
from tests.spec.kitchen.meal import PLAIN, cook


def tree(text: str) -> Node:
    node = read(Source("text", text, Path("text")))
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("{a: 1, b: 2}", "{b: 3}", {"a": 1, "b": 3}),
        ("{a: {b: 1, c: 2}}", "{a: {c: 3}}", {"a": {"b": 1, "c": 3}}),
        ("{a: [1, 2]}", "{a: [3]}", {"a": [3]}),
        ("{a: {b: 1}}", "{a: null}", {"a": None}),
        ("{a: 1}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: 1}", "{}", {"a": 1}),
    ],
)
def test_merge(base: str, over: str, merged: object) -> None:
    assert plain(merge(tree(base), tree(over))) == merged


def test_a_named_component_starts_afresh(tmp_path: Path) -> None:
    base = PLAIN.replace("oven: electric", "oven: {use: electric, shelves: 7}")
    (tmp_path / "base.yaml").write_text(base)
    child = tmp_path / "child.yaml"
    for oven, shelves in [
        ("{watts: 1500}", 7),
        ("{}", 7),
        ("electric", 3),
        ("{use: electric}", 3),
        ("{use: electric, watts: 1500}", 3),
        ("tiny", 1),
    ]:
        child.write_text(f"extends: base.yaml\nbake: {{heat: 100}}\noven: {oven}\n")
        assert cook(child).spec.oven.shelves == shelves, oven  # type: ignore[attr-defined]


def test_two_cards_of_one_component_do_not_blend(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(PLAIN.replace("bread", "rye"))
    (tmp_path / "child.yaml").write_text("extends: base.yaml\ndish: bread\n")
    assert cook(tmp_path / "child.yaml").spec.dish.grains == []  # type: ignore[attr-defined]


def test_layers_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLAIN)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yaml").write_text("extends: ../a.yaml\nbake: {minutes: 41, heat: 230}\n")
    (tmp_path / "c.yaml").write_text("extends: deep/b.yaml\nbake: {minutes: 42}\n")
    found = cook(tmp_path / "c.yaml", "bake.minutes=43", "bake.minutes=44", trial={"bake.preheat": False})
    assert (found.spec.bake.minutes, found.spec.bake.heat, found.spec.bake.preheat) == (44, 230.0, False)
    assert found.origins["bake.minutes"] == "--set #2"
    assert found.origins["bake.preheat"] == "trial"
    assert found.origins["bake.heat"].endswith("deep/b.yaml:2")
    assert found.origins["oven.use"].endswith("a.yaml:2")
    assert found.origins["bake.seed"] == "default"


def test_set_takes_yaml(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN)
    found = cook(
        file,
        "tags={a: b, 'c d': e}",
        "dish.grains=[rye, oats]",
        "notes=",
        "notes=one: two",
        "notes='one: two = three'",
        "bake . minutes = 3",
        "serve={judges: [aunt, {use: guest}], table: round}",
    )
    assert found.spec.tags == {"a": "b", "c d": "e"}
    assert found.spec.notes == "one: two = three"
    assert found.spec.bake.minutes == 3
    assert found.leaves()["serve.judges.0.harsh"] == 0.9
    assert found.leaves()["dish.grains"] == ["rye", "oats"]


def test_long_chains_are_refused_and_deep_ones_noticed(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(PLAIN)
    for number in range(1, 30):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number - 1}.yaml\n")
    assert not cook(tmp_path / "2.yaml").warnings
    assert "extend each other" in cook(tmp_path / "4.yaml").warnings[0].message
    with pytest.raises(SpecProblems, match="more than 20 files"):
        read_chain(tmp_path / "29.yaml")


def test_sweeps_are_carried_and_merged_by_entry(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLAIN + "sweep: {trials: 5, search: {x.y: {log: [1, 2]}, z: {int: [1, 2]}}}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nsweep: {search: {x.y: {uniform: [0, 1]}}}\n")
    plainly, swept = cook(tmp_path / "a.yaml"), cook(tmp_path / "b.yaml")
    assert swept.sweep == {"trials": 5, "search": {"x.y": {"uniform": [0, 1]}, "z": {"int": [1, 2]}}}
    assert swept.identity == plainly.identity
    assert swept.sweep_node is not None
    assert "search" in swept.sweep_node.entries
    assert merge_sweeps(read_sets(["a=1"])) is None


def test_uses_accumulate_and_keep_their_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text("uses: [./one.py]\n")
    (tmp_path / "b.yaml").write_text("extends: deep/a.yaml\nuses: [two.py]\n")
    files = [use.path for layer in read_chain(tmp_path / "b.yaml") for use in layer.uses]
    assert files == [tmp_path / "deep" / "one.py", tmp_path / "two.py"]
