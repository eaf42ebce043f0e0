"""Votes are counted in columns as they would be one by one, in whatever batches they come."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpo.data.pairs import interning as numbering
from smpo.data.pairs.interning import Growing, Interner
from smpo.data.pairs.votes import VoteCounter


def name(number: int) -> str:
    return f"{number:032x}"


def batch(rows: list[tuple[int, int, int, float, int]]) -> pa.RecordBatch:
    """`(prompt, first, second, share, votes)` as an index has them; places and sizes follow from the image."""
    listed = [
        {
            "caption": f"prompt {prompt}", "image_0": name(first), "image_1": name(second), "share": share,
            "votes": votes, "width_0": first + 1, "height_0": None, "width_1": second + 1, "height_1": 7,
        }
        | {f"{letter}{side}": image for side, image in enumerate((first, second)) for letter in "abc"}
        for prompt, first, second, share, votes in rows
    ]  # fmt: skip
    kinds = {"caption": pa.string(), "image_0": pa.string(), "image_1": pa.string(), "share": pa.float64()}
    names = list(listed[0]) if listed else []
    return pa.RecordBatch.from_pylist(listed, pa.schema([(one, kinds.get(one, pa.int64())) for one in names]))


def one_by_one(
    rows: list[tuple[int, int, int, float, int]], ties: str, votes: str, limit: int | None
) -> tuple[int, list[tuple[Any, ...]]]:
    """The rules in plain Python: rows that are read, and `(prompt, winner, loser, share, votes, repeat)` of pairs."""
    pairs: dict[Any, dict[str, Any]] = {}
    met: Counter[Any] = Counter()

    def counts(pair: dict[str, Any]) -> bool:
        return ties == "keep" or abs(2 * pair["points"] - pair["votes"]) > 1e-9

    read = len(rows)
    for number, (prompt, first, second, share, count) in enumerate(rows):
        shown = (prompt, *sorted((first, second)))
        key = shown if votes == "merge" else (*shown, number)
        if key not in pairs:
            if limit is not None and sum(map(counts, pairs.values())) >= limit:
                read = number
                break
            pairs[key] = {"shown": (prompt, first, second), "points": 0.0, "votes": 0, "repeat": met[shown]}
            met[shown] += votes == "separate"
        pair = pairs[key]
        pair["points"] += (share if pair["shown"][1] == first else 1 - share) * count
        pair["votes"] += count
    found = []
    for pair in pairs.values():
        share = pair["points"] / pair["votes"]
        share = 0.5 if abs(share - 0.5) < 1e-9 else share
        prompt, first, second = pair["shown"]
        if share != 0.5 or ties == "keep":
            sides = (second, first) if share < 0.5 else (first, second)
            found.append((prompt, *sides, max(share, 1 - share), pair["votes"], pair["repeat"]))
    return read, found if limit is None else found[:limit]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3), st.integers(4, 6), st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        st.sampled_from([1, 4]), st.booleans(),
    ).map(lambda row: (row[0], *(row[1:3] if row[5] else row[2:0:-1]), *row[3:5])),
    max_size=30,
)  # fmt: skip


@given(
    ROWS, st.sampled_from(["drop", "keep"]), st.sampled_from(["merge", "separate"]),
    st.none() | st.integers(1, 6), st.integers(1, 9),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_columns_count_like_a_loop(
    rows: list[tuple[int, int, int, float, int]], ties: Any, votes: Any, limit: int | None, size: int
) -> None:
    ballot, read = VoteCounter(ties=ties, votes=votes, limit=limit), 0
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        taken = ballot.add(batch(some), part=5)
        read += taken
        if taken < len(some):
            break
    counted = ballot.count()
    prompts = counted.prompts.to_pylist()
    images = [int(one.tobytes().hex(), 16) for one in counted.images]
    found = [
        (int(prompts[p].split()[1]), images[w], images[x], share, n, repeat)
        for p, w, x, share, n, repeat in zip(
            *(
                getattr(counted, column).tolist()
                for column in ("prompt", "winner", "loser", "share", "votes", "repeat")
            ),
            strict=True,
        )
    ]
    assert (read, found) == one_by_one(rows, ties, votes, limit)
    assert counted.places.tolist() == [[5, one, one, one] for one in images]
    assert (counted.sizes[:, 0] == np.array(images) + 1).all()
    assert counted.facts["pairs"] == len(found) and counted.facts["votes"] == sum(row[4] for row in found)


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12))
@settings(max_examples=100, deadline=None)
def test_keys_are_numbered_as_they_are_met(batches: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbering, "LATE", 3)  # so that both arrays are used
        some, known = Interner(8), {}
        for keys in batches:
            numbers, fresh = some(np.array(keys, ">u8").view("V8"))
            new = [at for at, key in enumerate(keys) if key not in known and key not in keys[:at]]
            assert numbers.tolist() == [known.setdefault(key, len(known)) for key in keys]
            assert fresh.tolist() == new
        assert len(some) == len(known)


def test_arrays_grow() -> None:
    some = Growing(np.int32, (2,))
    for size in (3, 2000, 0, 1):
        some.extend(np.full((size, 2), size))
    assert len(some) == 2004 and some.values[[0, 3, -1], 1].tolist() == [3, 2000, 1]
