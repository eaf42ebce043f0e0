"""Stand-ins of a few lines: models whose pictures follow from prompt and seed, judges that read a pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from smpo.evaluation.results.comparison import Judge
from smpo.evaluation.results.evaluate import SamplingSettings, evaluate
from smpo.evaluation.results.evaluation import Evaluation
from smpo.kinds import Prompt

QUICK = SamplingSettings(guidance=3.0, steps=4, images=2, seed=7, batch=5, keep=4)


class ToyModel:
    """Draws 8 x 8 pictures of one grey level; the policy's are `shift` levels brighter than the base's."""

    def __init__(self, shift: float = 10.0, spread: float = 5.0) -> None:
        self.shift, self.spread = shift, spread
        self.calls: list[tuple[bool, list[str], list[int]]] = []

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float,
        steps: int,
        reference: bool = False,
    ) -> list[Image.Image]:
        assert (guidance, steps) == (3.0, 4)
        self.calls.append((reference, list(prompts), list(seeds)))
        levels = [self._level(seed, reference) for seed in seeds]
        pairs = zip(levels, prompts, strict=True)
        return [Image.new("RGB", (8, 8), (level, level, len(prompt))) for level, prompt in pairs]

    def _level(self, seed: int, reference: bool) -> int:
        noise = np.random.default_rng([seed, reference]).normal(scale=self.spread)
        return round(np.random.default_rng(seed).uniform(60, 160) + (0 if reference else self.shift + noise))

    def drawn(self, *, reference: bool) -> int:
        return sum(len(seeds) for model, _, seeds in self.calls if model == reference)


class ToyPlane(ToyModel):
    def sample(self, prompts, seeds, *, guidance, steps, reference=False):  # type: ignore[no-untyped-def]
        self.calls.append((reference, list(prompts), list(seeds)))
        return [np.random.default_rng(s).normal(size=2).astype(np.float32) + (not reference) for s in seeds]


class ToyScorer:
    def __init__(self, key: str, look: Callable[[object], float]) -> None:
        self.key, self.look, self.calls = key, look, 0

    def __call__(self, pictures: Sequence[object], prompts: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([self.look(picture) for picture in pictures], dtype=torch.float32)


def red(picture: Image.Image) -> float:
    return float(picture.getpixel((0, 0))[0])  # type: ignore[index]


def bright() -> ToyScorer:
    return ToyScorer("bright-1", red)  # type: ignore[arg-type]


def dark() -> ToyScorer:
    return ToyScorer("dark-1", lambda picture: -red(picture))  # type: ignore[arg-type]


def judges(scorers: Mapping[str, ToyScorer], label_maker: str | None = None, **learned: bool) -> list[Judge]:
    """All learned unless `learned` says otherwise; `label_maker`: key of the reward that made the labels."""
    return [Judge(name, s.key, learned.get(name, True), s.key == label_maker) for name, s in scorers.items()]


def prompts(count: int = 12) -> list[Prompt]:
    return [Prompt(f"prompt number {k}") for k in range(count)]


def evaluation(count: int = 30, **more: object) -> Evaluation:
    """A small evaluation: `judge` is closed-form, `reward` made the labels, both like brightness."""
    scorers = {"reward": ToyScorer("reward-1", red), "judge": bright()}  # type: ignore[arg-type]
    found = evaluate(
        ToyModel(),  # type: ignore[arg-type]
        prompts(count),
        scorers,  # type: ignore[arg-type]
        settings=more.pop("settings", QUICK),  # type: ignore[arg-type]
        judges=judges(scorers, "reward-1", judge=False),
        **more,  # type: ignore[arg-type]
    )
    return replace(found, prompt_set="toys", role="untouched")
