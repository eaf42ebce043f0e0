"""Identity is the hash of meaning: what leaves a trace, and what doesn't."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from smpo.spec.identity import Neutral, canonical_json, fingerprint, meaning
from tests.spec.kitchen.meal import PLAIN, Bread, cook


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(PLAIN)
    return path


@pytest.mark.parametrize(
    "line",
    [
        "name=other",
        "notes=hello",
        "tags={a: b}",
        "runtime.cooks=4",
        "bake.preheat=true",
        "oven.watts=2000",
        "dish.rest=0",
    ],
)
def test_leaves_no_trace(file: Path, line: str) -> None:
    assert cook(file, line).identity == cook(file).identity


@pytest.mark.parametrize("line", ["oven.watts=2001", "oven=stone", "bake.heat=219", "dish.rest=1", "helper=aunt"])
def test_leaves_a_trace(file: Path, line: str) -> None:
    changed, before = cook(file, line).identity, cook(file).identity
    assert changed.spec_hash != before.spec_hash
    assert changed.group_hash != before.group_hash


def test_replicates_share_their_group(file: Path) -> None:
    """The seed that replicates differ in is `train.seed`; the kitchen has none, so say which it is."""
    versions = {"dish": 2}
    one, two = cook(file).spec, cook(file, "bake.seed=1").spec
    first, second = (fingerprint(spec, versions=versions, replicates=["bake.seed"]) for spec in (one, two))
    assert first.group_hash == second.group_hash
    assert first.spec_hash != second.spec_hash


def test_versions_and_local_code_count(file: Path) -> None:
    spec = cook(file).spec
    hashes = {
        fingerprint(spec, versions={"dish": 1}).spec_hash,
        fingerprint(spec, versions={"dish": 2}).spec_hash,
        fingerprint(spec, versions={"dish": 2}, uses=["00"]).spec_hash,
        fingerprint(spec, versions={"dish": 2}, uses=["01"]).spec_hash,
    }
    assert len(hashes) == 4


def test_a_hash_does_not_change_by_itself(file: Path) -> None:
    """If this fails, every identity in every run store has just changed."""
    assert cook(file).identity.spec_hash == "2e0978de972c"


def test_neutral_values_are_left_out() -> None:
    assert "rest" not in meaning(Bread())
    assert meaning(Bread(rest=1))["rest"] == 1

    class Before(BaseModel):
        heat: float = 1.0

    class After(BaseModel):
        heat: float = 1.0
        parts: Annotated[list[int], Neutral([])] = []
        mode: Annotated[bool | None, Neutral(None)] = None

    assert fingerprint(After(), versions={}) == fingerprint(Before(), versions={})
    assert fingerprint(After(mode=False), versions={}) != fingerprint(Before(), versions={})


def test_a_neutral_number_is_not_a_truth_value() -> None:
    class Spec(BaseModel):
        level: Annotated[int | bool, Neutral(0)] = 0

    assert meaning(Spec(level=0)) == {}
    assert meaning(Spec(level=False)) == {"level": False}


def test_sets_have_one_order() -> None:
    class Spec(BaseModel):
        words: frozenset[str]

    one = Spec(words=frozenset("abcdefgh"))
    assert meaning(one) == {"words": list("abcdefgh")}


def test_one_number_has_one_spelling() -> None:
    """A default may be written as 3 and come back from `resolved.yaml` as 3.0."""
    assert canonical_json([3, 10**22, -0.0, True]) == canonical_json([3.0, 1e22, 0, True])
    assert canonical_json(1) != canonical_json(True)


def test_canonical_json() -> None:
    assert canonical_json({"b": 1e-5, "a": [-0.0, "é"]}) == '{"a":[0,"\\u00e9"],"b":1e-05}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})
