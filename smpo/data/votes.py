"""Rows to pairs: votes of several people on the same two images are counted together, ties are settled.

People are asked about the same pair more than once, and disagree. Merging keeps what they said as a share of
votes, which smoothings can use, instead of training on a pair in both directions."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

__all__ = ["Ballot", "Counted", "Ties", "Votes"]

Ties = Literal["drop", "keep"]
Votes = Literal["merge", "separate"]
Where = tuple[int, int, int, int, int, int]
"""Part, three numbers of the source, width, height."""


@dataclass(frozen=True)
class Counted:
    """Pairs in columns, one row a pair, in storage order of their first votes.

    `prompt`, `winner`, `loser` `[M]` int32: indices into `prompts` and `images`; `share` `[M]` float64 in
    [0.5, 1]; `votes` `[M]` int32; `repeat` `[M]` int32 numbers pairs that are the same but for their votes
    (`separate`). `images` `[I]` ids as bytes; `places` `[I, 4]` int64: the part, and three numbers that the
    source understands; `sizes` `[I, 2]` int32: width and height, 0 where nobody looked."""

    prompts: Any
    images: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    prompt: np.ndarray[Any, Any]
    winner: np.ndarray[Any, Any]
    loser: np.ndarray[Any, Any]
    share: np.ndarray[Any, Any]
    votes: np.ndarray[Any, Any]
    repeat: np.ndarray[Any, Any]
    facts: dict[str, Any]


class Ballot:
    """Collects votes in storage order. `cast` is called for sound rows only.

    With a `limit`, reading may stop before the first vote on a pair that would exceed it (`full` tells), so a
    limited table costs a limited read; later votes on its pairs are then not counted."""

    def __init__(self, *, ties: Ties, votes: Votes, limit: int | None) -> None:
        self._ties, self._votes, self._limit = ties, votes, limit
        self._prompts: dict[str, int] = {}
        self._images: dict[str, int] = {}
        self._places = array("q")
        self._pairs: dict[tuple[int, int, int], int] = {}
        self._repeats: Counter[tuple[int, int, int]] = Counter()
        self._columns = {
            name: array("i") for name in ("prompt", "first", "second", "votes", "rows", "repeat")
        }
        self._points = array("d")  # for the first image
        self._usable = 0
        self._tie_votes = 0

    def cast(
        self, caption: str, images: tuple[str, str], share: float, places: tuple[Where, Where], votes: int = 1
    ) -> bool:
        """One row: `share` of its `votes` went to `images[0]`; `places` say where the images' bytes are, and how
        large they are (0 where nobody looked).

        False, and not counted, when the table is full and this row would open another pair.
        """
        first, second = (self._images.get(image, -1) for image in images)
        prompt = self._prompts.get(caption, -1)
        key = (prompt, min(first, second), max(first, second))
        known = self._pairs.get(key) if self._votes == "merge" and min(key) >= 0 else None
        if known is None:
            if self._limit is not None and self._usable >= self._limit:
                return False
            prompt = self._prompts.setdefault(caption, len(self._prompts))
            first, second = (self._image(image, where) for image, where in zip(images, places, strict=True))
            key = (prompt, min(first, second), max(first, second))
            known = self._open(key, prompt, first, second)
        else:
            self._usable -= self._counts(known)
            if self._columns["first"][known] != first:
                share = 1 - share  # shown in the other order
        self._points[known] += share * votes
        self._columns["votes"][known] += votes
        self._columns["rows"][known] += 1
        self._usable += self._counts(known)
        self._tie_votes += share == 0.5
        return True

    def count(self) -> Counted:
        """Settle every pair."""
        columns = {name: np.array(values, dtype=np.int32) for name, values in self._columns.items()}
        share = np.array(self._points) / np.maximum(columns["votes"], 1)
        tied = np.abs(share - 0.5) < 1e-9
        share[tied] = 0.5
        stays = np.ones(len(share), dtype=bool) if self._ties == "keep" else ~tied
        over = (
            np.flatnonzero(stays)[self._limit :] if self._limit is not None else np.array([], dtype=np.int64)
        )
        dropped = {
            "tie": int(columns["rows"][~stays].sum()),
            "over_limit": int(columns["rows"][over].sum()),
        }
        stays[over] = False
        swap = share < 0.5
        votes, best = columns["votes"][stays], np.where(swap, 1 - share, share)[stays]
        asked_again = votes > 1
        places = np.array(self._places, dtype=np.int64).reshape(-1, 6)
        return Counted(
            prompts=pa.array(list(self._prompts), pa.large_string()),
            images=np.array([image.encode() for image in self._images], dtype="S32"),
            places=places[:, :4],
            sizes=places[:, 4:].astype(np.int32),
            prompt=columns["prompt"][stays],
            winner=np.where(swap, columns["second"], columns["first"])[stays],
            loser=np.where(swap, columns["first"], columns["second"])[stays],
            share=best,
            votes=votes,
            repeat=columns["repeat"][stays],
            facts={
                "pairs": int(stays.sum()),
                "votes": int(votes.sum()),
                "ties": self._tie_votes,
                "tied_pairs": int(tied.sum()),
                "prompts": len(np.unique(columns["prompt"][stays])),
                "images": len(np.unique(np.concatenate([columns["first"][stays], columns["second"][stays]]))),
                "dropped": {reason: number for reason, number in dropped.items() if number},
                "votes_per_pair": {
                    str(n): int(k) for n, k in zip(*np.unique(votes, return_counts=True), strict=True)
                },
                "agreement": float((best * votes)[asked_again].sum() / votes[asked_again].sum())
                if asked_again.any()
                else None,
            },
        )

    def _image(self, image: str, where: Where) -> int:
        number = self._images.setdefault(image, len(self._images))
        if number * 6 == len(self._places):
            self._places.extend(where)
        return number

    def _open(self, key: tuple[int, int, int], prompt: int, first: int, second: int) -> int:
        number = len(self._points)
        self._points.append(0.0)
        for name, value in {
            "prompt": prompt,
            "first": first,
            "second": second,
            "votes": 0,
            "rows": 0,
        }.items():
            self._columns[name].append(value)
        self._columns["repeat"].append(self._repeats[key])
        if self._votes == "merge":
            self._pairs[key] = number
        else:
            self._repeats[key] += 1
        return number

    def _counts(self, pair: int) -> bool:
        """Whether this pair would stay in the table as its votes stand."""
        return self._ties == "keep" or abs(2 * self._points[pair] - self._columns["votes"][pair]) > 1e-9
