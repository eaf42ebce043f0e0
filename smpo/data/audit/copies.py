"""The same pictures in other bytes: pairs that look alike, and pairs that were encoded anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from smpo.data.audit.book import Row
from smpo.data.audit.findings import SHOWN, Finding, example_of, side_by_side, winner_of

__all__ = ["alike"]


def alike(rows: Sequence[Row], doubles: Mapping[str, str]) -> Iterable[Finding]:
    """The same pictures in other bytes."""
    if not doubles:
        return

    def seen_as(name: str) -> str:
        return doubles.get(name, name)

    within = [row for row in rows if seen_as(row.first) == seen_as(row.second)]
    if within:
        yield Finding(
            "lookalikes", "a pair of images that look the same", "doubtful", len(within), len(rows), "rows",
            "Their bytes differ, their pictures hardly do: the label can only be chance.",
            [example_of(row) for row in within[:SHOWN]],
        )  # fmt: skip
    grouped: dict[tuple[str, ...], dict[tuple[str, str, str], list[Row]]] = defaultdict(
        lambda: defaultdict(list)
    )
    copied = doubles.keys() | set(doubles.values())
    others = set()  # pairs of which nothing has a copy can't be copies of one another
    for row in rows:
        if row.first not in copied and row.second not in copied:
            others.add(hash(row.pair))
        elif seen_as(row.first) != seen_as(row.second):
            key = (row.caption, *sorted((seen_as(row.first), seen_as(row.second))))
            grouped[key][row.pair].append(row)
    whole = len(grouped) + len(others)
    copies = [group for group in grouped.values() if len(group) > 1]
    if not copies:
        return
    yield Finding(
        "re_encoded_pair", "a pair again, with its images encoded anew", "doubtful", len(copies), whole, "pairs",
        "Counted as different pairs, since their bytes differ: votes aren't merged, and copies may end up on both "
        "sides of a split.",
        [side_by_side(group) for group in copies[:SHOWN]],
    )  # fmt: skip
    against = [
        group for group in copies
        if len({seen_as(winner_of(row)) for some in group.values() for row in some if row.share != 0.5}) > 1
    ]  # fmt: skip
    if against:
        yield Finding(
            "re_encoded_contradiction", "encoded anew, with the opposite label", "doubtful", len(against), whole,
            "pairs", "Training would push both ways: merging can't see that it is the same pair.",
            [side_by_side(group) for group in against[:SHOWN]],
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------ pictures
