"""Cards are checked without a spec that uses them."""

from pathlib import Path

from smpo.registry.cards import Cards
from smpo.registry.check import check_cards
from smpo.registry.expand import Catalogue
from tests.spec.kitchen.meal import REGISTRY, ROOT, Meal

BROKEN = Path(__file__).parents[1] / "spec" / "kitchen" / "broken"


def test_sound_cards() -> None:
    assert check_cards(Catalogue(REGISTRY, Cards([ROOT])), Meal) == []


def test_everything_that_is_wrong_with_cards(tmp_path: Path) -> None:
    messages = [problem.message for problem in check_cards(Catalogue(REGISTRY, Cards([BROKEN])), Meal)]
    assert messages == [
        "card `stale` uses dish `bred`, which is not installed",
        "card `former` is in a file called `renamed.yaml`",
        "two cards are called judge `twins`",
        "a card needs `summary`",
        "`version` should be a whole number, not `one`",
        "`sumary` is not a setting of a card",
        "`watts` should be at most 10000, not `20000`",
        "`shelfs` is not a setting of oven `electric`",
        "card `wood` is called like a component of its kind, and uses another",
    ]


def test_what_a_card_fits_must_exist(tmp_path: Path) -> None:
    (tmp_path / "ovens").mkdir()
    (tmp_path / "ovens" / "odd.yaml").write_text(
        "kind: oven\nname: odd\nuse: wood\nversion: 1\nsummary: Leaves the logs to the spec.\nwith: {smoke: 0.5}\n"
        "fits: {dish: [bread, rice], serve.table: [round], dishes: [bread]}\n"
    )
    problems = check_cards(Catalogue(REGISTRY, Cards([tmp_path])), Meal)
    assert [(problem.message, problem.label) for problem in problems] == [
        ("no dish is called `rice`", "names: `bread`, `steps`"),
        ("a spec has no slot `dishes`", "did you mean `dish`?"),
    ]
