"""Cards: found by name, read when asked for, expanded with their places."""

from pathlib import Path

import pytest

from smpo.registry import cards as module
from smpo.registry.cards import Cards, card_roots, read_card
from smpo.spec.problems import SpecProblems
from tests.spec.kitchen.meal import PLAIN, ROOT, cook


def write(
    root: Path, name: str, *, kind: str = "oven", use: str = "electric", folder: str = "ovens", more: str = ""
) -> Path:
    file = root / folder / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = f"kind: {kind}\nname: {name}\nuse: {use}\nversion: 1\nsummary: A test.\n"
    file.write_text(text + (more if "with:" in more else f"{more}with: {{}}\n"))
    return file


def test_reading_a_card() -> None:
    card = read_card(ROOT / "ovens" / "stone.yaml")
    assert (card.kind, card.name, card.use, card.version) == ("oven", "stone", "wood", 3)
    assert card.needs.gigabytes == 2.5
    assert card.needs.network
    assert card.summary == "Keeps its heat for a day."
    assert read_card(ROOT / "ovens" / "tiny.yaml").source["paper"] == "A Kitchen of One's Own"


def test_only_the_file_that_is_asked_for_is_read(tmp_path: Path) -> None:
    write(tmp_path, "good")
    (tmp_path / "ovens" / "bad.yaml").write_text("- not a card\n")
    cards = Cards([tmp_path])
    assert cards.get("oven", "good") is cards.get("oven", "good")
    assert cards.get("oven", "nothing") is None
    assert cards.get("dish", "good") is None
    with pytest.raises(SpecProblems, match="card is a map"):
        cards.get("oven", "bad")
    with pytest.raises(SpecProblems, match="card is a map"):
        cards.all()


def test_all_broken_cards_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, more="sorce: {}\n")
    with pytest.raises(SpecProblems) as caught:
        Cards([tmp_path]).all()
    assert len(caught.value.problems) == 2


def test_first_root_wins_and_one_root_may_not_contradict_itself(tmp_path: Path) -> None:
    write(tmp_path / "mine", "tiny", more="with: {watts: 1}\n")
    cards = Cards([tmp_path / "mine", tmp_path / "none", ROOT, ROOT])
    mine = cards.get("oven", "tiny")
    assert mine is not None
    assert mine.file.path is not None
    assert mine.file.path.is_relative_to(tmp_path)
    assert cards.names("oven") == ("stone", "tiny")
    assert len(cards.roots) == 2
    write(tmp_path / "mine", "tiny", folder="more")
    write(tmp_path / "mine", "tiny", folder="dishes", kind="dish", use="bread")
    for ask in (lambda one: one.get("oven", "tiny"), lambda one: one.all()):
        with pytest.raises(SpecProblems, match="two cards are called oven `tiny`"):
            ask(Cards([tmp_path / "mine", ROOT]))
    assert Cards([tmp_path / "mine", ROOT]).get("dish", "tiny") is not None


def test_values_keep_the_place_in_the_card(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN.replace("electric", "{use: tiny, shelves: 2}").replace("220", "150"))
    found = cook(file)
    assert found.origins["oven.watts"].endswith("ovens/tiny.yaml:7")
    assert found.origins["oven.use"].endswith("ovens/tiny.yaml:3")
    assert found.origins["oven.shelves"].endswith("a.yaml:2")
    card = found.card_of("oven")
    assert card is not None
    assert card.name == "tiny"
    assert found.card_of("dish") is None
    assert found.card_of("nothing") is None
    assert any(source.name.endswith("tiny.yaml") for source in found.sources)


def test_a_card_still_counts_after_adjustments(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLAIN.replace("electric", "tiny").replace("220", "150"))
    (tmp_path / "b.yaml").write_text("extends: a.yaml\noven: {shelves: 9}\n")
    assert cook(tmp_path / "b.yaml").card_of("oven") is not None
    assert cook(tmp_path / "b.yaml", "oven=electric").card_of("oven") is None


def test_a_card_and_its_values_are_the_same_spec(tmp_path: Path) -> None:
    card, values = tmp_path / "card.yaml", tmp_path / "values.yaml"
    card.write_text(PLAIN.replace("bread", "rye"))
    values.write_text(PLAIN.replace("bread", "{use: bread, crust: thick, grains: [rye], flour: 600}"))
    assert cook(card).identity == cook(values).identity


def test_a_card_says_what_it_was_made_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN.replace("bread", "rye"))
    (warning,) = cook(file).warnings
    assert warning.message == "card `rye` was made for oven `stone` or `wood`, not for `electric`"
    assert (warning.level, warning.path) == ("warning", "dish")
    assert cook(file, "oven=stone").warnings == ()
    assert cook(file, "oven={use: wood, logs: 3}").warnings == ()


def test_a_card_may_carry_its_components_name(tmp_path: Path) -> None:
    """`resolved.yaml` names components; a card of that name must not turn them into something else."""
    write(tmp_path / "cards", "electric", more="with: {watts: 1500}\n")
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN)
    found = cook(file, roots=(tmp_path / "cards",))
    assert found.leaves()["oven.watts"] == 1500
    assert found.card_of("oven") is not None
    again = tmp_path / "again.yaml"
    again.write_text(found.resolved_yaml())
    assert cook(again, roots=(tmp_path / "cards",)).identity == found.identity
    assert cook(again, roots=()).identity == found.identity


def test_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "acme_cards"
    (package / "deep" / "cards").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('finding cards must not import')")
    monkeypatch.syspath_prepend(tmp_path)

    class Point:
        name, module, attr = "acme", "acme_cards", "deep.cards"

    class Gone:
        name, module, attr = "gone", "no_such_package.inside", ""

    monkeypatch.setattr(module, "entry_points", lambda group: [Point, Gone])
    roots = card_roots([tmp_path / "extra"])
    assert roots[:3] == [Path("registry"), tmp_path / "extra", package / "deep" / "cards"]
    assert roots[3].name in ("registry", "_registry")
    assert len(roots) == 4
