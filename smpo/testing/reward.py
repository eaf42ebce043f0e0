"""What a reward promises."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from smpo.kinds import Reward, Runtime, Scorer
from smpo.testing.component import ComponentContract

__all__ = ["RewardContract"]


class RewardContract(ComponentContract):
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

    def test_its_check_is_a_sentence_or_nothing(self, component: Reward) -> None:
        reason = component.check()
        assert reason is None or (isinstance(reason, str) and reason)

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
