"""Rows to pairs: votes of several people on the same two images are counted together, ties are settled.

Several people vote on the same pair, and disagree. Merging keeps their votes as a share, which smoothings can use,
instead of training on a pair in both directions.

Rows come in batches and are counted in columns of numbers, without an object for each: a million pairs fit beside a
model on any machine that trains one (benchmarks/load_data.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from smpo.data.pairs.interning import Array, Growing, Interner, hashed, raw

__all__ = ["Counted", "Ties", "VoteCounter", "Votes"]

Ties = Literal["drop", "keep"]
Votes = Literal["merge", "separate"]

_PLACE = ("a", "b", "c")


@dataclass(frozen=True)
class Counted:
    """Pairs in columns, one row a pair, in storage order of their first votes.

    `prompt`, `winner`, `loser` `[M]` int32: indices into `prompts` and `images`; `share` `[M]` float64 in
    [0.5, 1]; `votes` `[M]` int32; `repeat` `[M]` int32 numbers pairs that are the same but for their votes
    (`separate`). `images` `[I]` ids as 16 raw bytes; `places` `[I, 4]` int64: the part, and three numbers of the
    source; `sizes` `[I, 2]` int32: width and height, 0 where unknown."""

    prompts: Any
    images: Array
    places: Array
    sizes: Array
    prompt: Array
    winner: Array
    loser: Array
    share: Array
    votes: Array
    repeat: Array
    facts: dict[str, Any]


class VoteCounter:
    """Collects votes in storage order. `cast` is called with sound rows only.

    With a `limit`, reading may stop before the first vote on a pair that would exceed it (`full`), so a
    limited table costs a limited read; later votes on its pairs are then not counted."""

    def __init__(self, *, ties: Ties, votes: Votes, limit: int | None) -> None:
        self._ties, self._votes, self._limit = ties, votes, limit
        self._captions, self._names, self._shown = Interner(16), Interner(16), Interner(12)
        self._prompts: list[Any] = []  # Arrow arrays of those that were new in a batch
        self._images, self._places = Growing("V16"), Growing(np.int64, (4,))
        self._sizes = Growing(np.int32, (2,))
        self._columns = {name: Growing(np.int32) for name in ("prompt", "first", "second", "repeat")}
        self._counts = {"votes": Growing(np.int32), "rows": Growing(np.int32)}
        self._points = Growing(np.float64)  # for the first image
        self._met = Growing(np.int32)  # how often each pair was opened, where votes are separate
        self._usable = 0
        self._tie_votes = 0

    def add(self, rows: pa.RecordBatch, part: int) -> int:
        """Count rows of an index, in order; how many were taken. Fewer than there are, and nothing of the rest, when
        the table is full and the next row would open another pair."""
        if not rows.num_rows:
            return 0
        prompt, new_prompts = self._captions(hashed(rows.column("caption")))
        names = np.stack([raw(rows.column(f"image_{side}")) for side in (0, 1)], axis=1)  # [N, 2]
        images, new_images = self._names(names.ravel())
        first, second = images.reshape(-1, 2).T
        share, votes = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("share", "votes"))
        pair, opened = self._pairs(prompt, first, second)
        self._prompts.append(rows.column("caption").take(pa.array(new_prompts)))
        self._images.extend(names.ravel()[new_images])
        self._places.extend(_both(rows, _PLACE, "{name}{side}", part)[new_images])
        self._sizes.extend(_both(rows, ("width", "height"), "{name}_{side}")[new_images])
        for name, values in (("prompt", prompt), ("first", first), ("second", second)):
            self._columns[name].extend(values[opened])
        for column in (*self._counts.values(), self._points):
            column.extend(np.zeros(len(opened), np.int32))

        turned = self._columns["first"].values[pair] != first  # shown in the other order
        share = np.where(turned, 1 - share, share)
        taken = len(pair) if self._limit is None else self._until_full(pair, share, votes)
        pair, share, votes = pair[:taken], share[:taken], votes[:taken]
        np.add.at(self._points.values, pair, share * votes)
        np.add.at(self._counts["votes"].values, pair, votes)
        np.add.at(self._counts["rows"].values, pair, 1)
        self._tie_votes += int((share == 0.5).sum())
        return taken

    def count(self) -> Counted:
        """Settle every pair."""
        columns = {name: column.values for name, column in {**self._columns, **self._counts}.items()}
        share = self._points.values / np.maximum(columns["votes"], 1)
        tied = np.abs(share - 0.5) < 1e-9
        share[tied] = 0.5
        opened = columns["rows"] > 0  # a full table may have met pairs that it didn't take
        stays = opened if self._ties == "keep" else opened & ~tied
        over = np.flatnonzero(stays)[self._limit :] if self._limit is not None else np.array([], dtype=np.int64)
        dropped = {
            "tie": int(columns["rows"][~stays].sum()),
            "over_limit": int(columns["rows"][over].sum()),
        }
        stays[over] = False
        swap = share < 0.5
        votes, best = columns["votes"][stays], np.where(swap, 1 - share, share)[stays]
        asked_again = votes > 1
        shown = np.concatenate([columns["first"][stays], columns["second"][stays]])
        return Counted(
            prompts=pa.chunked_array(self._prompts, pa.string()),
            images=self._images.values,
            places=self._places.values,
            sizes=self._sizes.values,
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
                "tied_pairs": int((opened & tied).sum()),
                "prompts": len(np.unique(columns["prompt"][stays])),
                "images": len(np.unique(shown)),
                "dropped": {reason: number for reason, number in dropped.items() if number},
                "votes_per_pair": {str(n): int(k) for n, k in zip(*np.unique(votes, return_counts=True), strict=True)},
                "agreement": float((best * votes)[asked_again].sum() / votes[asked_again].sum())
                if asked_again.any()
                else None,
            },
        )

    def _pairs(self, prompt: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """The number of each row's pair, and which rows open one."""
        key = np.stack([prompt, np.minimum(first, second), np.maximum(first, second)], axis=1)
        shown, fresh = self._shown(np.ascontiguousarray(key, np.int32).view("V12").ravel())
        if self._votes == "merge":
            self._columns["repeat"].extend(np.zeros(len(fresh), np.int32))
            return shown, fresh
        self._met.extend(np.zeros(len(fresh), np.int32))
        order = np.argsort(shown, kind="stable")
        met = shown[order]
        within = np.empty(len(shown), np.int32)  # how many rows of this batch came before with the same pair
        within[order] = np.arange(len(met)) - np.searchsorted(met, met)
        self._columns["repeat"].extend(self._met.values[shown] + within)
        np.add.at(self._met.values, shown, 1)
        every = np.arange(len(shown))
        return (len(self._points) + every).astype(np.int32), every

    def _until_full(self, pair: Array, share: Array, votes: Array) -> int:
        """How many rows go in before one would open a pair too many."""
        assert self._limit is not None
        points, cast, rows = self._points.values, self._counts["votes"].values, self._counts["rows"].values
        here: dict[int, tuple[float, int]] = {}
        for number, (one, part, count) in enumerate(zip(pair.tolist(), share.tolist(), votes.tolist(), strict=True)):
            was = here.get(one, (float(points[one]), int(cast[one])))
            known = one in here or rows[one] > 0
            if not known and self._usable >= self._limit:
                return number
            here[one] = now = was[0] + part * count, was[1] + count
            self._usable += int(self._counts_as_pair(*now)) - int(known and self._counts_as_pair(*was))
        return len(pair)

    def _counts_as_pair(self, points: float, votes: int) -> bool:
        """Whether a pair would stay in the table as its votes stand."""
        return self._ties == "keep" or abs(2 * points - votes) > 1e-9


def _both(rows: pa.RecordBatch, names: tuple[str, ...], pattern: str, *before: int) -> Array:
    """`[2N, …]`: numbers of the first and second image of each row, one after another; 0 for what isn't known."""
    sides = [
        [
            rows.column(pattern.format(name=name, side=side)).fill_null(0).to_numpy(zero_copy_only=False)
            for name in names
        ]
        for side in (0, 1)
    ]
    found = np.array(sides).transpose(2, 0, 1).reshape(2 * rows.num_rows, len(names))  # [2, names, N] -> [2N, names]
    lead = np.broadcast_to(np.array(before, np.int64), (len(found), len(before)))
    return np.concatenate([lead, found], axis=1)
