"""What must hold whatever is written."""

import random
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo.diagnostics.render import as_json, github, render
from smpo.spec.emit import emit
from smpo.spec.leaves import diff
from smpo.spec.problems import SpecProblems
from smpo.spec.read import read
from smpo.spec.source import Source
from smpo.spec.tree import plain
from tests.spec.kitchen.meal import PLAIN, cook

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
data = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)


@st.composite
def meals(draw: st.DrawFn) -> dict[str, Any]:
    """Sound specs, in their long form."""
    oven = draw(
        st.one_of(
            st.fixed_dictionaries({"use": st.just("electric"), "watts": st.integers(5000, 10000)}),
            st.fixed_dictionaries(
                {"use": st.just("wood"), "logs": st.integers(1, 9)}, optional={"smoke": st.floats(0, 1)}
            ),
        )
    )
    dish = draw(
        st.fixed_dictionaries(
            {"use": st.just("bread"), "flour": st.floats(500, 900)},
            optional={
                "grains": st.lists(texts, max_size=3),
                "shares": st.dictionaries(texts, st.floats(-1e9, 1e9), max_size=2),
                "rest": st.integers(0, 3),
            },
        )
    )
    bake = draw(
        st.fixed_dictionaries(
            {"minutes": st.integers(1, 600), "heat": st.floats(1, 500)},
            optional={
                "seed": st.integers(0, 9),
                "fan": st.fixed_dictionaries({"use": st.sampled_from(["plain", "turbo"])}),
            },
        )
    )
    extra = draw(
        st.fixed_dictionaries({}, optional={"notes": texts, "tags": st.dictionaries(texts, texts, max_size=2)})
    )
    return {"name": "meal", "oven": oven, "dish": dish, "bake": bake, **extra}


def spelled(value: Any, rng: random.Random, *, top: bool = False) -> str:
    """The same data, written in one of the many ways in which it can be: key order, spelling, quotes."""
    if isinstance(value, dict):
        pairs = list(value.items())
        rng.shuffle(pairs)
        if set(value) == {"use"} and rng.random() < 0.5:
            return str(value["use"])
        inner = [f"{emit({key: 0}).rsplit(':', 1)[0]}: {spelled(one, rng)}" for key, one in pairs]
        return "\n".join(inner) + "\n" if top else "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelled(one, rng) for one in value) + "]"
    if isinstance(value, float):
        exact = [repr(value), f"{value:.17e}", f"{value:.17E}", f"{value!r:}"]
        if value.is_integer() and abs(value) < 1e15:
            exact += [str(int(value)), f"{int(value)}.", f"+{int(value)}.0" if value >= 0 else repr(value)]
        return rng.choice(exact)
    return emit({"k": value})[3:].strip()


@quick
@given(meal=meals(), seed=st.integers(0, 2**32))
def test_how_it_is_written_does_not_matter(meal: dict[str, Any], seed: int, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(emit(meal), encoding="utf-8")
    two.write_text(spelled(meal, random.Random(seed), top=True), encoding="utf-8")
    first, second = cook(one), cook(two)
    assert first.identity == second.identity
    assert diff(first.leaves(), second.leaves()) == []


@quick
@given(meal=meals())
def test_resolved_yaml_resolves_to_itself(meal: dict[str, Any], tmp_path: Path) -> None:
    typed, run = tmp_path / "typed.yaml", tmp_path / "run.yaml"
    typed.write_text(emit(meal), encoding="utf-8")
    first = cook(typed)
    run.write_text(first.resolved_yaml(), encoding="utf-8")
    second = cook(run)
    assert second.identity == first.identity
    assert second.leaves() == first.leaves()


@quick
@given(meal=meals())
def test_a_layer_that_sets_nothing_changes_nothing(meal: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(emit(meal), encoding="utf-8")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\noven: {}\nbake: {}\n")
    base = cook(tmp_path / "base.yaml")
    assert cook(child).identity == base.identity
    assert cook(child).origins == base.origins


@quick
@given(meal=meals())
def test_set_lines_do_what_the_file_does(meal: dict[str, Any], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.yaml", tmp_path / "parts.yaml"
    whole.write_text(emit(meal), encoding="utf-8")
    parts.write_text(PLAIN)
    trial = {f"{section}": value for section, value in meal.items() if isinstance(value, dict)}
    trial["bake"] = {**trial["bake"]}
    assert cook(parts, trial=trial).identity == cook(whole).identity


@quick
@given(value=st.dictionaries(texts.filter(lambda text: text != "<<"), data, max_size=4))
def test_what_is_emitted_reads_back(value: dict[str, Any]) -> None:
    root = read(Source("f", emit(value), Path("f")))
    got = plain(root) if root is not None else {}
    assert got == value
    assert repr(got) == repr(value)


WORDS = "oven dish bake use extends uses sweep name serve judges electric bread rye tiny ~ 1e5 .inf 0x null true"
MARKS = "[ ] { } , &a *a !t << ' \" # | > % @ ? \\ é 🙂 \x07 --- ..."
BITS = [
    *WORDS.split(),
    *MARKS.split(),
    ": ",
    ":\n  ",
    "\n",
    "\n- ",
    "\t",
    "  ",
    "\x85",
    "\u2028",
    "\ufeff",
    "\x00",
]


@settings(quick, max_examples=200)
@given(text=st.one_of(st.lists(st.sampled_from(BITS), max_size=25).map("".join), st.text(max_size=60)))
def test_no_text_is_too_strange_to_be_answered(text: str, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    answer(file)


@settings(quick, max_examples=120)
@given(
    base=st.sampled_from(["name", "oven", "dish", "bake", "serve", "tags", "helper", "runtime", "extends", "uses"]),
    value=data,
)
def test_no_value_is_too_strange_to_be_answered(base: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    whole = {
        "name": "meal",
        "oven": "electric",
        "dish": "bread",
        "bake": {"minutes": 1, "heat": 2},
        base: value,
    }
    file.write_text(emit(whole), encoding="utf-8")
    answer(file)


@quick
@given(
    texts=st.lists(
        st.one_of(st.text(max_size=20), st.lists(st.sampled_from([*BITS, "=", "."]), max_size=8).map("".join))
    )
)
def test_no_set_line_is_too_strange_to_be_answered(texts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN)
    answer(file, *texts)


def answer(file: Path, *sets: str) -> None:
    """A spec, or problems that can be shown; never another exception, never a bare control character."""
    try:
        cook(file, *sets)
    except SpecProblems as error:
        shown = render(error.problems)
        assert all(char.isprintable() or char == "\n" for char in shown)
        shown.encode()
        as_json(error.problems).encode("utf-8", "surrogatepass")
        github(error.problems)


def test_diff_of_a_thing_with_itself_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN)
    leaves = cook(file).leaves()
    assert diff(leaves, leaves) == []
    changes = diff(leaves, cook(file, "bake.heat=7", "oven=stone").leaves())
    assert [str(change) for change in changes][:2] == ["bake.heat: 220.0 -> 7.0", "oven.logs: absent -> 12"]
    assert diff({"a": 1}, {"a": 1.0}) == []
    assert len(diff({"a": 1}, {"a": True})) == 1
    assert len(diff({"a": None}, {})) == 1


def test_short_and_long_form_in_any_order(tmp_path: Path) -> None:
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text(PLAIN)
    lines = PLAIN.replace("oven: electric", "oven: {watts: 2000, use: electric}").splitlines()
    long.write_text("\n".join(reversed(lines)))
    assert cook(short).identity == cook(long).identity
