"""What pairs and prompt sets promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from smpo.kinds import PairData, PairTable, PromptSet, Runtime
from smpo.testing.component import ComponentContract

__all__ = ["DataContract", "PromptsContract"]


class DataContract(ComponentContract):
    """A table of sound pairs, the same at each reading."""

    @pytest.fixture
    def table(self, component: PairData, tmp_path: Path) -> PairTable:
        """The live thing; skipped where the data isn't."""
        if reason := component.check():
            pytest.skip(reason)
        return component.load(Runtime(cache=tmp_path / "cache"), tmp_path / "report.json")

    def test_its_check_is_a_sentence_or_nothing(self, component: PairData) -> None:
        reason = component.check()
        assert reason is None or (isinstance(reason, str) and reason)

    def test_its_pairs_are_sound(self, table: PairTable) -> None:
        assert len(table) > 0
        pairs = [table[row] for row in range(len(table))]
        assert len({pair.id for pair in pairs}) == len(pairs), "ids name pairs in errors and caches"
        for pair in pairs:
            assert pair.winner != pair.loser and pair.prompt == pair.prompt.strip() != ""
            assert 0.5 <= pair.share <= 1 and pair.votes >= 1, "the winner has at least half of the votes"

    def test_its_pictures_can_be_opened(self, table: PairTable) -> None:
        for row in {0, len(table) // 2, len(table) - 1}:
            for image in (table[row].winner, table[row].loser):
                assert table.picture(image) is not None
        with pytest.raises((KeyError, LookupError)):
            table.picture("no such picture")

    def test_rows_beyond_the_end_do_not_exist(self, table: PairTable) -> None:
        with pytest.raises(IndexError):
            table[len(table)]

    def test_reading_it_again_gives_the_same(self, component: PairData, table: PairTable, tmp_path: Path) -> None:
        again = component.load(Runtime(cache=tmp_path / "another"), None)
        assert again.digest == table.digest and len(again) == len(table)
        assert [again[row] for row in range(len(again))] == [table[row] for row in range(len(table))]

    def test_it_counts(self, component: PairData, table: PairTable) -> None:
        size = component.size()
        assert size is None or size >= len(table), "an upper bound, from a cheap look"
        assert table.report["pairs"] == len(table)


class PromptsContract(ComponentContract):
    """Prompts in a fixed order, and what they may be used for."""

    def test_it_lists_prompts_in_a_fixed_order(self, component: PromptSet) -> None:
        if reason := component.check():
            pytest.skip(reason)
        prompts = component.load()
        assert prompts and prompts == component.load()
        assert all(isinstance(prompt.text, str) and prompt.text.strip() for prompt in prompts)

    def test_each_belongs_to_a_group(self, component: PromptSet) -> None:
        """Intervals resample groups; an empty group would tie everything together."""
        if component.check() is None:
            assert all(prompt.group for prompt in component.load())

    def test_it_says_what_it_is_for(self, component: PromptSet) -> None:
        assert component.role in ("training", "tuning", "untouched")

    def test_its_check_is_a_sentence_or_nothing(self, component: PromptSet) -> None:
        reason = component.check()
        assert reason is None or (isinstance(reason, str) and reason)
