"""What a run is shown: the settings of its stream of samples, and one visit of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from smpo.kinds import Pair, Placement, Sampling

__all__ = ["Sample", "Shown", "Stream", "both_sides"]


@dataclass(frozen=True)
class Stream:
    """What the stream of samples consists of: fields of `train`, under their names there.

    `batch` is pairs per update over all processes; `micro_batch` is how many of them a process holds at once.
    `sampling` is what the objective wants to be shown; `unconditional` adds rows with the empty prompt.
    """

    seed: int
    batch: int
    micro_batch: int | None = None
    flip: bool | Literal["apart"] = False
    crop: Literal["centre", "random"] = "centre"
    prompt_dropout: float = 0.0
    sampling: Sampling = field(default_factory=Sampling)
    unconditional: bool = False


@dataclass(frozen=True)
class Shown:
    """One image as it is shown: which side of the pair at `row` of the table it comes from, and with which words."""

    row: int
    side: int
    image: str
    prompt: str
    placement: Placement
    desirable: bool = True


@dataclass(frozen=True)
class Sample:
    """One visit: two images at `position` of the stream, winner and loser of `pair`, unless single images are wanted;
    then `pair` is where the first comes from."""

    position: int
    pair: Pair
    shown: tuple[Shown, Shown]

    @property
    def row(self) -> int:
        return self.shown[0].row

    @property
    def prompt(self) -> str:
        return self.shown[0].prompt

    @property
    def placement(self) -> Placement:
        """Of the first image; the second's is the same unless `flip` is `apart`."""
        return self.shown[0].placement


def both_sides(
    pair: Pair, row: int, prompts: tuple[str, str], placements: tuple[Placement, Placement]
) -> tuple[Shown, Shown]:
    """Winner and loser."""
    return (
        Shown(row, 0, pair.winner, prompts[0], placements[0]),
        Shown(row, 1, pair.loser, prompts[1], placements[1], desirable=False),
    )
