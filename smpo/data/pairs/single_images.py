"""Single labelled images out of a table of pairs: what Diffusion-KTO trains on.

An image (with its prompt) is desirable if it was preferred in at least one pair, as its authors label Pick-a-Pic
(237,530 against 690,538). Each place of the stream draws label and image by itself, with replacement, keyed by its
position; the official sampler is a weighted one with replacement too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smpo.errors import RunError
from smpo.kinds import PairTable
from smpo.maths.draws import PositionDraws

__all__ = ["Single", "Singles"]


@dataclass(frozen=True)
class Single:
    """An image with its label; `row` and `side` say where in the table it was met first."""

    row: int
    side: int
    image: str
    prompt: str
    desirable: bool


class Singles:
    """Desirable and undesirable images of `rows`, to be drawn in the proportion `share` : 1 - `share`.

    `p` `[M]`: above 1/2 the first image of a pair is preferred, below it the second; at 1/2 neither."""

    def __init__(self, table: PairTable, p: Tensor, rows: Sequence[int], share: float) -> None:
        chances = p.tolist()
        found: dict[tuple[str, str], Single] = {}
        for row in rows:
            pair = table[row]
            preferred = 0 if chances[row] > 0.5 else 1 if chances[row] < 0.5 else None
            for side, image in enumerate((pair.winner, pair.loser)):
                key = (image, pair.prompt)
                known = found.get(key)
                if known is None or (side == preferred and not known.desirable):
                    found[key] = Single(row, side, image, pair.prompt, side == preferred)
        self.desirable = [one for one in found.values() if one.desirable]
        self.undesirable = [one for one in found.values() if not one.desirable]
        self.share = share
        if not self.desirable or not self.undesirable:
            kind = "undesirable" if self.desirable else "desirable"
            raise RunError(
                f"none of the {len(found)} images is {kind}: single images need both labels",
                help="an image is desirable if it was preferred at least once; look at the smoothing",
            )

    def draw(self, draws: PositionDraws) -> list[tuple[Single, Single]]:
        """Two images for each position."""
        return list(zip(self._column(draws, 0), self._column(draws, 1), strict=True))

    def _column(self, draws: PositionDraws, column: int) -> list[Single]:
        labels = draws.uniform(f"label/{column}").tolist()
        places = draws.uniform(f"image/{column}").tolist()
        chosen = []
        for label, place in zip(labels, places, strict=True):
            pool = self.desirable if label < self.share else self.undesirable
            chosen.append(pool[int(place * len(pool))])
        return chosen
