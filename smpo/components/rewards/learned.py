"""The base of rewards with published weights: a usual range, and the reason when files are absent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from smpo.components.locations import locate, missing
from smpo.errors import SpecError
from smpo.kinds import Reward, Scorer
from smpo.spec.identity import Neutral

__all__ = ["Learned", "NetworkReward", "absent"]


class Learned(Reward):
    """A reward that may say where its scores usually lie."""

    band: Annotated[tuple[float, float] | None, Neutral(None)] = None
    """Lowest and highest score that is usual; smpo warns when most scores of a run lie outside. Null: no warning."""

    @model_validator(mode="after")
    def _band_is_one(self) -> Learned:
        if self.band is not None and self.band[0] >= self.band[1]:
            raise SpecError("band", f"{self.band[0]:g} to {self.band[1]:g} is no range")
        return self

    def _watched(self, scorer: Scorer) -> Scorer:
        from smpo.rewards.bands import banded

        return banded(scorer, self.band, self.use)


class NetworkReward(Learned):
    """A learned reward whose network smpo itself runs."""

    precision: Annotated[Literal["fp32", "bf16", "fp16"], Neutral("fp32")] = "fp32"
    """Precision of the network. 16 bits take half the memory, and a fraction of the time on a GPU; docs/performance.md
    has the change of scores; they are cached apart from those in float32."""


TEXTS = ("*.json", "*.txt")
"""What a repository has beside weights: architecture, tokenizer and preprocessing."""


def absent(place: str | None, file: str | None = None, *, revision: str | None = None) -> str | None:
    """Why a folder, hub id or file can't be opened here, in a sentence; `file`, a glob, is what is needed of it."""
    if place is None:
        return None
    if reason := missing(place, revision=revision, file=file):
        return reason
    folder = Path(locate(place))
    if file is None or not folder.is_dir() or (folder / file).is_file():
        return None
    if "*" not in file or not any(folder.glob(file)):
        return f"the folder `{place}` has no {file}"
    return None
