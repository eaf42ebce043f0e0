"""What pairs, prompt sets and rewards promise."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.kinds import PairData, PairTable, PromptSet, Reward, Runtime, Scorer
from smpo.testing.component import CheckedContract

__all__ = ["DataContract", "PromptsContract", "RewardContract"]


class DataContract(CheckedContract):
    """A table of sound pairs, the same at each reading."""

    @pytest.fixture
    def table(self, component: PairData, tmp_path: Path) -> PairTable:
        """The live thing; skipped where the data isn't."""
        if reason := component.check():
            pytest.skip(reason)
        return component.load(Runtime(cache=tmp_path / "cache"), tmp_path / "report.json")

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


class PromptsContract(CheckedContract):
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


class RewardContract(CheckedContract):
    """A finite score for each picture, always the same, whatever else is in the batch."""

    @pytest.fixture
    def pictures(self) -> Sequence[Any]:
        """Six small pictures."""
        import numpy as np
        from PIL import Image

        noise = np.random.default_rng(0)
        return [Image.fromarray(noise.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(6)]

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        """A prompt for each picture."""
        return ["a red square on blue", "a dog", "", "a dog", "ein Hund", "two birds, oil on canvas"]

    @pytest.fixture
    def scorer(self, component: Reward, tmp_path: Path) -> Scorer:
        """The live thing; skipped where its weights aren't."""
        if reason := component.check():
            pytest.skip(reason)
        return component.load(Runtime(cache=tmp_path))

    def test_it_scores_each_picture(self, scorer: Scorer, pictures: Sequence[Any], prompts: Sequence[str]) -> None:
        scores = scorer(pictures, prompts)
        assert scores.shape == (len(pictures),)
        assert scores.dtype == torch.float32 and scores.device.type == "cpu" and not scores.requires_grad
        assert bool(scores.isfinite().all())

    def test_it_is_deterministic(self, scorer: Scorer, pictures: Sequence[Any], prompts: Sequence[str]) -> None:
        assert torch.equal(scorer(pictures, prompts), scorer(pictures, prompts))

    def test_a_score_does_not_depend_on_its_company(
        self, scorer: Scorer, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> None:
        """Scores are cached one by one, so they must be the same one by one."""
        whole = scorer(pictures, prompts)
        alone = torch.cat([scorer([x], [y]) for x, y in zip(pictures, prompts, strict=True)])
        torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)

    def test_its_work_on_the_cpu_can_be_done_ahead(
        self, scorer: Scorer, pictures: Sequence[Any], prompts: Sequence[str]
    ) -> None:
        """Optional: `score` of what `preprocess` returns, in any thread, is what the call returns."""
        preprocess = getattr(scorer, "preprocess", None)
        if preprocess is None:
            return
        with ThreadPoolExecutor(2) as threads:
            inputs = list(threads.map(preprocess, pictures))
        assert torch.equal(scorer.score(inputs, prompts), scorer(pictures, prompts))  # type: ignore[attr-defined]

    def test_it_has_a_key(self, component: Reward, scorer: Scorer, tmp_path: Path) -> None:
        """Scores are filed under it: equal recipes give equal keys, in any process."""
        assert isinstance(scorer.key, str) and scorer.key
        assert component.load(Runtime(cache=tmp_path)).key == scorer.key

    def test_an_embedding_has_a_row_for_each_picture(self, scorer: Scorer, pictures: Sequence[Any]) -> None:
        """Optional: `embed` lets evaluation measure how far pictures have moved in what the reward sees."""
        embed = getattr(scorer, "embed", None)
        if embed is None:
            return
        rows = embed(pictures)
        assert rows.ndim == 2 and len(rows) == len(pictures) and rows.device.type == "cpu"
        assert bool(rows.isfinite().all()) and bool((rows.norm(dim=1) > 0).all())
        torch.testing.assert_close(torch.cat([embed([x]) for x in pictures]), rows, rtol=1e-4, atol=1e-5)
